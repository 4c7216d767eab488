"""The full paired analysis of two methods of a suite, in the words of a paper's results section."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness import registry
from harness.engine.ledger import Ledger
from harness.engine.pairing import matches, pair_with_baseline
from harness.engine.plan import Point
from harness.errors import BadInput
from harness.params import Expression, bind, parse_expression
from harness.scores import LOGARITHMIC
from harness.stats import Comparison, Interval, ScoreSet
from harness.tables.hardware import depends_on_machine, require_one_machine
from harness.tables.model import Quantity
from harness.tables.rounding import p_value
from harness.tables.scope import (
    Scope,
    Taken,
    collect,
    machines,
    metric_labels,
    read_scores,
    row_labels,
    short_names,
    stack,
    succeeded,
)
from harness.tables.statistics import RESAMPLES, evaluate, margin_of_difference


@dataclass(frozen=True)
class Analysis:
    """One metric of two rows on one problem. `margin` is in the unit of the difference; `family` is how many
    comparisons the correction covers; `refused` says why there is no comparison."""

    problem: str
    metric: str
    method: str
    than: str
    unit: str = ""
    summary: str = "mean"
    higher_is_better: bool = False
    signature: str = ""
    seeds: tuple[int, ...] = ()
    estimates: tuple[Interval, Interval] | None = None
    comparison: Comparison | None = None
    margin: float | None = None
    family: int = 1
    refused: str = ""


def analyse(scope: Scope, method: str, than: str, ledger: Ledger) -> Iterator[Analysis]:
    """Every row of `method` against the row of `than` that has the same values of the parameters both have, on every
    problem and metric of the suite. Raises BadInput where the suite has no such rows."""
    first, second = (_expression(scope, text) for text in (method, than))
    chosen = [point for point in scope.points if _fits(point, first)]
    chosen += [point for point in scope.points if _fits(point, second) and point not in chosen]
    paired = pair_with_baseline([(point.method, point.params) for point in chosen], second)
    partners = [partner if _fits(point, first) else None for point, partner in zip(chosen, paired, strict=True)]
    for text, expression in ((method, first), (than, second)):
        if not any(_fits(point, expression) for point in scope.points):
            known = ", ".join(dict.fromkeys(point.method for point in scope.points))
            raise BadInput(f"{text}: suite {scope.suite.name} has no such row; its methods are {known}")
    if not any(partner is not None for partner in partners):
        raise BadInput(
            f"{method} and {than}: no row of one has a single row of the other with the same values of the parameters "
            "both have; give more parameters, as in 'rtn(bits=3, clip=minmax)'"
        )
    found = collect(scope, ledger)
    places = [scope.points.index(point) for point in chosen]
    names = row_labels(scope.points, scope.suite.track)
    for at, problem in enumerate(scope.problems):
        taken = [found.get((at, place), {}) for place in places]
        rows = _Rows(scope, scope.title(at), [names[place] for place in places], taken, partners, ledger)
        yield from _problem(rows, metric_labels(problem))


def _expression(scope: Scope, text: str) -> Expression:
    expression = parse_expression(text)
    entry = registry.resolve(expression, track=scope.suite.track)
    list(bind(expression, entry.params, entry.name))
    return expression


def _fits(point: Point, expression: Expression) -> bool:
    return matches((point.method, point.params), expression)


@dataclass(frozen=True)
class _Rows:
    """The rows that are compared on one problem, with the names they have in the suite's table."""

    scope: Scope
    problem: str
    names: Sequence[str]
    taken: Sequence[Taken]
    partners: Sequence[int | None]
    ledger: Ledger


def _problem(rows: _Rows, labels: Sequence[str]) -> Iterator[Analysis]:
    short = short_names(labels)
    for label in labels:
        sets: list[ScoreSet | None] = []
        reasons: dict[int, str] = {}
        for at, taken in enumerate(rows.taken):
            scores = read_scores(rows.ledger, succeeded(taken), label)
            try:
                sets.append(stack(rows.ledger, succeeded(taken), scores) if scores else None)
            except BadInput as error:
                sets.append(None)
                reasons[at] = f"the seeds of {rows.names[at]} cannot be put together: {error}"
        yield from _metric(rows, label, short[label], sets, reasons)


def _metric(
    rows: _Rows, label: str, name: str, sets: Sequence[ScoreSet | None], reasons: Mapping[int, str]
) -> Iterator[Analysis]:
    metric = parse_expression(label).name
    margin, bounds = rows.scope.suite.margins.get(metric), registry.get(metric, "metric").bounds
    found = evaluate(sets, rows.partners, margin, rows.scope.correction, bounds)
    for at, partner in enumerate(rows.partners):
        if partner is None:
            continue
        blank = Analysis(rows.problem, name, rows.names[at], rows.names[partner])
        method, base = sets[at], sets[partner]
        if method is None or base is None:
            lacking = at if method is None else partner
            yield replace(blank, refused=reasons.get(lacking) or _nothing(rows, lacking))
            continue
        refused = found[at].problem or _other_machine(method.unit, rows.ledger, rows.taken[at], rows.taken[partner])
        one, other = found[at].interval, found[partner].interval
        if refused or one is None or other is None:
            yield replace(blank, refused=refused)
            continue
        yield replace(
            blank,
            unit=method.unit,
            summary=method.summary,
            higher_is_better=method.higher_is_better,
            signature=method.signature,
            seeds=tuple(seed for seed in method.seeds if seed in base.seeds),
            estimates=(one, other),
            comparison=found[at].difference,
            margin=margin_of_difference(base, margin),
            family=sum(other == partner for other in rows.partners),
        )


def _nothing(rows: _Rows, at: int) -> str:
    name, taken, scope = rows.names[at], rows.taken[at], rows.scope
    if not taken:
        return f"{name} has not been run; `harness run {scope.suite.name} --only '{name}'` does it"
    reasons = dict.fromkeys(f"{one.status}: {one.reason}" for one in taken.values())
    return f"{name} has no result: {len(taken)} of {len(scope.seeds)} seeds ended badly ({'; '.join(reasons)})"


def _other_machine(unit: str, ledger: Ledger, *rows: Taken) -> str:
    if depends_on_machine(unit):
        try:
            require_one_machine(machines(ledger, [one for row in rows for one in succeeded(row).values()]))
        except BadInput as error:
            return str(error)
    return ""


def sentences(one: Analysis) -> Iterator[str]:
    """The analysis in sentences, a line each."""
    if one.comparison is None or one.estimates is None:
        yield f"Not compared: {one.refused}."
        return
    found = one.comparison
    seeds = f"{found.seeds} seeds ({', '.join(map(str, one.seeds))})" if found.seeds > 1 else f"seed {one.seeds[0]}"
    yield f"Both were scored on the same {_count(found.items, 'item')} under the same {seeds}."
    a, b = (Quantity(e.value, e.low, e.high) for e in one.estimates)
    unit = f" {one.unit}" if one.unit not in ("", "1") else ""
    yield f"{one.method}: {a}{unit}. {one.than}: {b}{unit}."
    difference = Quantity(found.difference, found.low, found.high, signed=True)
    scale = " of the natural logarithm" if one.summary in LOGARITHMIC else ""
    yield (
        f"Mean paired difference{scale}: {difference.number}, 95% interval {difference.interval} "
        f"(BCa bootstrap over {found.levels}, {RESAMPLES:,} resamples)."
    )
    yield f"{_test(found, one.family)} Effect size: {found.effect_name} = {found.effect:.2f}."
    yield _equivalence(found, one.margin)
    yield (
        f"With 80% power at the 5% level this design finds a true difference of {found.detectable:.2g} or more"
        f"{' after the correction' if one.family > 1 else ''}."
    )
    yield f"Verdict: {_verdict(one)}"
    yield f"Protocol: {one.signature}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _test(found: Comparison, family: int) -> str:
    text = f"{found.test[0].upper()}{found.test[1:]} test, two-sided: p = {p_value(found.p)}"
    if family > 1 and found.adjusted_p is not None:
        text += f", {p_value(found.adjusted_p)} after Holm's correction for {family} comparisons"
    return text + "."


def _equivalence(found: Comparison, margin: float | None) -> str:
    if margin is None or found.equivalence_p is None:
        return "Equivalence was not tested: the suite states no margin for this metric."
    p = found.equivalence_p if found.adjusted_equivalence_p is None else found.adjusted_equivalence_p
    shown = "shown" if p < 0.05 else "not shown"
    return f"Equivalence within ±{margin:.3g} (two one-sided tests): p = {p_value(p)}, {shown}."


def _verdict(one: Analysis) -> str:
    assert one.comparison is not None
    words = {
        "better": f"{one.method} is better than {one.than}.",
        "worse": f"{one.method} is worse than {one.than}.",
        "equivalent": f"{one.method} and {one.than} are equivalent within the margin.",
        "inconclusive": "inconclusive: neither a difference nor equivalence has been shown.",
    }
    return words[one.comparison.verdict]
