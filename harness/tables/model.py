"""What a table is, whatever it is written as."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.tables.citation import Citation
from harness.tables.rounding import p_value, rounded

METHOD, BITS, SIZE = "method", "bits_per_weight", "model_mb"
SECONDS, MEMORY, SEEDS, FAILED = "seconds", "peak_memory_mb", "seeds", "failed"
"""Keys of the columns that are not a metric's."""
BEST, TIED = "best", "tied"
"""Marks of an estimate: the best of its group, or one that the paired test cannot tell from the best."""


@dataclass(frozen=True)
class Evidence:
    """What stands behind a verdict: p of no difference, before and after the table's correction, and an effect size."""

    p: float
    adjusted_p: float
    effect: float
    effect_name: str

    def __str__(self) -> str:
        after = f" ({p_value(self.adjusted_p)} after the correction)" if self.adjusted_p != self.p else ""
        return f"p = {p_value(self.p)}{after}, {self.effect_name} = {self.effect:.2f}"


@dataclass(frozen=True)
class Quantity:
    """A number, with its interval where it is an estimate, a word on it (a verdict), a mark (`BEST`, `TIED`),
    and the test that the word rests on. Without an interval it is shown with `digits` significant digits."""

    value: float
    low: float | None = None
    high: float | None = None
    word: str = ""
    signed: bool = False
    digits: int = 4
    mark: str = ""
    test: Evidence | None = None

    @property
    def number(self) -> str:
        """The value, rounded by its uncertainty."""
        return rounded([self.value], self.low, self.high, signed=self.signed, digits=self.digits)[0]

    @property
    def interval(self) -> str:
        """`[low, high]`, rounded as the value is; empty without an interval."""
        if self.low is None or self.high is None:
            return ""
        low, high = rounded([self.low, self.high], self.low, self.high, signed=self.signed)
        return f"[{low}, {high}]"

    def __str__(self) -> str:
        return " ".join(part for part in (self.number, self.interval, self.word) if part)


@dataclass(frozen=True)
class Column:
    """A column: `key` names it in files, `title` for readers, `unit` stands beside the title. Columns of one `group`
    (a metric) belong together: a writer that is short of room may cut the table between groups."""

    key: str
    title: str
    unit: str = ""
    group: str = ""
    text: bool = False

    @property
    def heading(self) -> str:
        return f"{self.title} ({self.unit})" if self.unit else self.title


Value = str | Quantity | None
"""None: there is nothing to show (a trial that failed, a metric that does not apply)."""


@dataclass(frozen=True)
class Row:
    """One method with one set of parameters; `params` are complete, `notes` numbers of the table's notes, `role` what
    the row is there for (`harness.registry.Role`)."""

    method: str
    params: dict[str, object]
    values: dict[str, Value]
    notes: tuple[int, ...] = ()
    role: str = "method"


@dataclass(frozen=True)
class Table:
    """The results of one problem of a suite. Notes are numbered from 1 in the order of the list; the first
    `general` of them belong to the whole table, the others to the rows that name them. `protocol` are the signatures
    of its metrics, each also one of the notes; `caption` is the suite's title."""

    suite: str
    title: str
    problem: dict[str, object]
    columns: list[Column]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    general: int = 0
    protocol: list[str] = field(default_factory=list)
    citation: Citation | None = None
    caption: str = ""
