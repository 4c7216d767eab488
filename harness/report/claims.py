"""The papers' claims on the report's suites, as rows of a table of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.claims import Finding, judge, select
from harness.engine.ledger import Ledger
from harness.params import format_call
from harness.registry import Claim
from harness.report.gather import Section
from harness.report.payload import cell
from harness.tables import Quantity

COLUMNS = ("claim", "tested on", "outcome", "measured Δ", "one-sided p", "the paper")


def claim_table(sections: Sequence[Section], ledger: Ledger) -> dict[str, Any] | None:
    """What became of every claim that is tested in one of the suites: `rows` of `cells` under `columns`, each with its
    outcome and the key of the row it was measured on. None where no method claims anything there."""
    suites = {section.suite.name for section in sections}
    claims = [(entry, claim) for entry, claim in select() if claim.suite in suites]
    if not claims:
        return None
    places = _places(sections)
    return {"columns": COLUMNS, "rows": [_row(finding, places) for finding in judge(claims, ledger)]}


def _places(sections: Sequence[Section]) -> dict[tuple[str, str, str], str]:
    """Keys of rows on the page by suite, problem and label."""
    return {
        (section.suite.name, table.title, str(row.values["method"])): f"{number}.{problem}.{at}"
        for number, section in enumerate(sections)
        for problem, table in enumerate(section.tables)
        for at, row in enumerate(table.rows)
    }


def _row(finding: Finding, places: Mapping[tuple[str, str, str], str]) -> dict[str, Any]:
    where = f"{finding.row} against {finding.than}, {finding.metric}" if finding.row else finding.metric
    on = f"{where} on {finding.problem}" if finding.problem else where
    return {
        "outcome": finding.verdict,
        "where": places.get((finding.claim.suite, finding.problem, finding.row)),
        "cells": [
            _statement(finding.method, finding.claim), on, finding.verdict, *_measured(finding),
            finding.claim.paper or None,
        ],
    }  # fmt: skip


def _measured(finding: Finding) -> tuple[Any, Any]:
    """(difference, p), or why there is none."""
    if not finding.seeds:
        return finding.reason, None
    effect = Quantity(finding.difference, finding.low, finding.high, signed=True)
    p = f"{finding.adjusted_p:.2g}" if finding.adjusted_p >= 0.001 else "< 0.001"
    if finding.verdict == "inconclusive":
        p += f"; {finding.detectable:.2g} would be found with 80% power"
    return cell(effect), p


def _statement(method: str, claim: Claim) -> str:
    margin = f" by more than {claim.margin:g}" if claim.margin else ""
    return f"{format_call(method, claim.params)} is better than {claim.than}{margin} in {claim.metric} ({claim.suite})"
