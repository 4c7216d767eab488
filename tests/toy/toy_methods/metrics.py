"""Toy metrics."""

from harness.tracks.toy import ToySubject

from harness import Dataset, Scores, metric


@metric()
def error(subject: ToySubject, *, power: int = 1, dataset: Dataset | None = None, split: str = "test") -> Scores:
    """Distance of each value from what it was."""
    values = abs(subject.values - subject.target)[: subject.limit] ** power
    return Scores([f"row:{row}" for row in range(len(values))], values, f"error|power:{power}|v:1", unit="1")
