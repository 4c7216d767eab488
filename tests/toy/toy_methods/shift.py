"""A toy method in a module of its own."""

from harness.tracks.toy import ToyProblem

from harness import method


@method(track="toy")
def shift(problem: ToyProblem, *, by: int = 1, twice: bool = False):
    """Add a number."""
    return problem.values + by * (2 if twice else 1)
