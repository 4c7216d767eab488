"""A toy method that draws at random."""

from harness.tracks.toy import ToyProblem

from harness import method


@method(track="toy")
def noise(problem: ToyProblem, *, scale: float = 1.0):
    """Add noise."""
    return problem.values + scale * problem.generator.standard_normal(len(problem.values))
