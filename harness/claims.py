"""Papers' claims tested on the ledger: supported, not supported, or inconclusive at this scale.

A claim is a one-sided hypothesis: the method's metric is better than the other's by more than the claim's margin. It is
tested on every problem, metric and pair of rows of its suite that fits, with Holm's correction over these. Whatever
comes out is a result; nothing is tuned until a claim holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from harness import registry
from harness.engine.ledger import Ledger
from harness.engine.pairing import matches, pair_with_baseline
from harness.engine.plan import Point
from harness.engine.record import Record
from harness.engine.suite import load_suite
from harness.errors import BadInput, nearest
from harness.params import Expression, format_call, parse_expression
from harness.registry import Claim, Entry
from harness.scores import LOGARITHMIC
from harness.stats import Comparison, ScoreSet, compare
from harness.stats.significance import adjust
from harness.tables.scope import (
    Scope,
    collect,
    metric_labels,
    read_scores,
    row_labels,
    short_names,
    stack,
    succeeded,
)
from harness.tables.statistics import ALPHA, RESAMPLES, margin_of_difference

Verdict = Literal["supported", "not supported", "inconclusive", "not run"]
Taken = Mapping[tuple[int, int], dict[int, Record]]


@dataclass(frozen=True)
class Finding:
    """One claim on one problem, metric and pair of rows.

    `difference` is the method minus the other with its 95% interval, of the logarithm for a perplexity (`logarithm`);
    `p` is one-sided, `adjusted_p` after Holm's correction over the claim's `family` of findings; `against_p` that of
    the opposite (the improvement falls short of the margin), adjusted likewise. `reason` says why nothing was measured.
    """

    method: str
    claim: Claim
    problem: str
    metric: str
    row: str = ""
    than: str = ""
    verdict: Verdict = "not run"
    difference: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    logarithm: bool = False
    p: float = 1.0
    adjusted_p: float = 1.0
    against_p: float = 1.0
    equivalence_p: float | None = None
    detectable: float = float("nan")
    items: int = 0
    seeds: int = 0
    family: int = 1
    reason: str = ""


def select(name: str | None = None) -> list[tuple[Entry, Claim]]:
    """The claims of a method, those tested in a suite, or all. Raises BadInput for a name that is neither."""
    from harness.engine.suite import names

    claims = [(entry, claim) for entry in registry.entries() for claim in entry.claims]
    if name is None:
        return claims
    wanted = name.replace("-", "_")
    methods = {entry.name for entry in registry.entries()}
    if wanted in methods:
        return [(entry, claim) for entry, claim in claims if entry.name == wanted]
    if name in names():
        return [(entry, claim) for entry, claim in claims if claim.suite == name]
    raise BadInput(f"{name!r} is neither a method nor a suite; {nearest(name, [*methods, *names()])}")


def scope_of(claim: Claim) -> Scope:
    return Scope.of(load_suite(claim.suite))


def pairs(entry: Entry, claim: Claim, scope: Scope) -> list[tuple[int, int]]:
    """Positions of the rows that a claim is tested on: (the method's, the other's). Raises BadInput for none."""
    method, than = Expression(entry.name, dict(claim.params)), parse_expression(claim.than)
    places = [at for at, point in enumerate(scope.points) if _fits(point, method) or _fits(point, than)]
    rows = [(scope.points[at].method, scope.points[at].params) for at in places]
    partners = pair_with_baseline(rows, than)
    found = [
        (place, places[partner])
        for place, partner in zip(places, partners, strict=True)
        if partner is not None and _fits(scope.points[place], method)
    ]
    if not found:
        raise BadInput(
            f"suite {claim.suite} has no row of {method} that can be compared with {than}: it takes one row of that, "
            "and one alone, with the same values of the parameters both have"
        )
    return found


def _fits(point: Point, expression: Expression) -> bool:
    return matches((point.method, point.params), expression)


def needed(entry: Entry, claim: Claim, scope: Scope) -> list[str]:
    """The rows that a claim rests on, as expressions that `harness run --only` takes."""
    rows = dict.fromkeys(at for pair in pairs(entry, claim, scope) for at in pair)
    return [format_call(scope.points[at].method, scope.points[at].params) for at in rows]


def judge(claims: Sequence[tuple[Entry, Claim]], ledger: Ledger | None) -> Iterator[Finding]:
    """Test claims on what the ledger has; each suite's records are read once."""
    known: dict[str, tuple[Scope, Taken]] = {}
    for entry, claim in claims:
        try:
            if claim.suite not in known:
                scope = scope_of(claim)
                known[claim.suite] = scope, collect(scope, ledger) if ledger else {}
            scope, taken = known[claim.suite]
            yield from _holm(list(_findings(entry, claim, scope, taken, ledger)))
        except BadInput as error:
            yield Finding(entry.name, claim, "", claim.metric, reason=str(error))


def _findings(entry: Entry, claim: Claim, scope: Scope, taken: Taken, ledger: Ledger | None) -> Iterator[Finding]:
    names = row_labels(scope.points, scope.suite.track)
    wanted = parse_expression(claim.metric)
    for at, problem in enumerate(scope.problems):
        labels = metric_labels(problem)
        short = short_names(labels)
        for label in labels:
            if not _is_metric(label, wanted):
                continue
            for row, other in pairs(entry, claim, scope):
                blank = Finding(entry.name, claim, scope.title(at), short[label], names[row], names[other])
                try:
                    one = _scores(taken.get((at, row), {}), label, ledger, names[row])
                    base = _scores(taken.get((at, other), {}), label, ledger, names[other])
                    yield _measure(blank, one, base, scope.suite.margins.get(wanted.name))
                except BadInput as error:
                    yield replace(blank, reason=str(error))


def _is_metric(label: str, wanted: Expression) -> bool:
    call = parse_expression(label)
    return call.name == wanted.name and wanted.values.items() <= call.values.items()


def _scores(taken: Mapping[int, Record], label: str, ledger: Ledger | None, name: str) -> ScoreSet:
    scores = read_scores(ledger, succeeded(taken), label) if ledger else {}
    if not scores or ledger is None:
        reasons = dict.fromkeys(f"{one.status}: {one.reason}" for one in taken.values())
        raise BadInput(f"{name}: every seed ended badly ({'; '.join(reasons)})" if taken else f"{name}: not run")
    return stack(ledger, succeeded(taken), scores)


def _measure(blank: Finding, one: ScoreSet, base: ScoreSet, negligible: float | None) -> Finding:
    """The finding before the correction: one-sided tests of the improvement against the claim's margin."""
    common = [seed for seed in one.seeds if seed in base.seeds]
    if not common:
        raise BadInput(f"no seed was finished by both {blank.row} and {blank.than}")
    one, base = one.on_seeds(common), base.on_seeds(common)
    sign = 1 if base.higher_is_better else -1
    shift = sign * _claimed(base, blank.claim.margin)
    found = compare(
        replace(one, values=one.values - shift) if shift else one,
        base,
        margin_of_difference(base, negligible),
        resamples=RESAMPLES,
    )
    better = sign * found.difference > 0
    return replace(
        blank,
        difference=found.difference + shift,
        low=found.low + shift,
        high=found.high + shift,
        logarithm=base.summary in LOGARITHMIC,
        p=found.p / 2 if better else 1 - found.p / 2,
        against_p=1 - found.p / 2 if better else found.p / 2,
        equivalence_p=None if shift else found.equivalence_p,
        detectable=found.detectable,
        items=found.items,
        seeds=found.seeds,
        verdict=_side(found, sign),
    )


def _claimed(base: ScoreSet, margin: float) -> float:
    """The claimed improvement on the scale of the difference. Raises BadInput for more than a perplexity holds."""
    if base.summary not in LOGARITHMIC or not margin:
        return margin
    improved = base.value + (margin if base.higher_is_better else -margin)
    if improved <= 0:
        raise BadInput(f"the claimed improvement of {margin} is more than the other's {base.value:.4g}")
    return abs(float(np.log(improved / base.value)))


def _side(found: Comparison, sign: int) -> Verdict:
    """On which side of the claimed margin the whole interval lies; the tests decide later."""
    low, high = sorted((sign * found.low, sign * found.high))
    return "supported" if low > 0 else "not supported" if high < 0 else "inconclusive"


def _holm(findings: list[Finding]) -> list[Finding]:
    """The findings of one claim with adjusted p values, and the verdicts that follow.

    Supported and not supported both need the test and the interval. An effect that is shown to be within what the
    suite calls negligible does not support a claim either, unless it is also shown to be there.
    """
    measured = [one for one in findings if one.seeds]
    columns = {name: adjust(np.array([getattr(one, name) for one in measured])) for name in ("p", "against_p")}
    nothing = adjust(np.array([1.0 if one.equivalence_p is None else one.equivalence_p for one in measured]))
    judged = []
    for at, one in enumerate(measured):
        p, against = float(columns["p"][at]), float(columns["against_p"][at])
        verdict: Verdict = "inconclusive"
        if one.verdict == "supported" and p < ALPHA:
            verdict = "supported"
        elif (one.verdict == "not supported" and against < ALPHA) or nothing[at] < ALPHA:
            verdict = "not supported"
        judged.append(replace(one, verdict=verdict, adjusted_p=p, against_p=against, family=len(measured)))
    return judged + [one for one in findings if not one.seeds]
