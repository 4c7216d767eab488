"""From sections to the page: everything the template shows."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

import harness
from harness.engine.ledger import Ledger
from harness.report.claims import claim_table
from harness.report.figure import Figure
from harness.report.figures import problem_figures, rank_figure
from harness.report.gather import Section
from harness.report.payload import embedded, payload
from harness.report.plots.style import COLOURS, HALF, NARROW, WIDE, styled
from harness.report.svg import inline
from harness.report.trends import trend_figure
from harness.tables.model import Quantity, Table
from harness.tables.writers import problem_line

DARK = {
    "ink": "#e9e7e2",
    "muted": "#a3a4a2",
    "line": "#35373b",
    "page": "#17181a",
    "better": "#6cb6ee",
    "worse": "#f29763",
    "equivalent": "#b8a9ea",
    "inconclusive": "#a0a2a7",
    "limit": "#ea808a",
    "series-1": "#62a9e8",
    "series-2": "#f08f4f",
    "series-3": "#4cc29d",
    "series-4": "#d592c8",
    "series-5": "#d3b243",
    "series-6": "#9aaec4",
    "series-7": "#e57f92",
    "series-8": "#62c5d8",
}
"""The palette of the plots on a dark page."""
LIGHT = {**COLOURS, "page": "#fdfdfb"}
EXTRA = {"soft": ("#f2f2ee", "#222427"), "accent": ("#1f6fb3", "#62a9e8")}
"""Colours of the page alone: (light, dark)."""
ENVIRONMENTS = 8
"""Columns of the environment's table; more are told in a line."""


@dataclass(frozen=True)
class Report:
    """A page, and the plots in it."""

    html: str
    figures: Sequence[Figure]


def build(sections: Sequence[Section], ledger: Ledger) -> Report:
    """The page of these suites. The same ledger gives the same page, byte for byte."""
    drawn = [_figures(section, number, ledger) for number, section in enumerate(sections)]
    claims = claim_table(sections, ledger)
    records = [record for section in sections for row in section.taken.values() for record in row.values()]
    environments = Counter(record.environment for record in records)
    script = _asset("report.js")
    data = payload(sections, ledger)
    data["claims"] = claims
    with styled():
        shown = [_section(section, number, *drawn[number]) for number, section in enumerate(sections)]
    html = _template().render(
        title=f"{', '.join(section.suite.name for section in sections)}: report of nn-harness {harness.__version__}",
        names=" · ".join(section.suite.name for section in sections),
        version=harness.__version__,
        newest=f"{datetime.fromtimestamp(max(one.created for one in records), UTC):%Y-%m-%d %H:%M} UTC",
        policy=_policy(script),
        css=Markup(_colours() + _asset("report.css")),
        script=Markup(script),
        data=Markup(embedded(data)),
        sections=shown,
        claims=bool(claims),
        environments=[{"records": count} for _, count in environments.most_common(ENVIRONMENTS)],
        more_environments=max(0, len(environments) - ENVIRONMENTS),
        environment_lines=_environments([ledger.environment(one) for one, _ in environments.most_common(ENVIRONMENTS)]),
    )
    problems = [figure for per_problem, _ in drawn for one in per_problem for figure in one]
    return Report(html, [*problems, *(ranks for _, ranks in drawn)])


def _figures(section: Section, number: int, ledger: Ledger) -> tuple[list[list[Figure]], Figure]:
    found = []
    for at in range(len(section.tables)):
        trend = trend_figure(section, number, at, ledger)
        found.append([*problem_figures(section, number, at, ledger), *([trend] if trend else [])])
    return found, rank_figure(section, number)


def _section(section: Section, number: int, figures: Sequence[Sequence[Figure]], ranks: Figure) -> dict[str, Any]:
    suite = section.suite
    return {
        "id": f"suite-{number}-{suite.name}",
        "name": suite.name,
        "title": suite.title,
        "baseline": str(suite.baseline),
        "facts": _facts(section),
        "problems": [_problem(section, number, at, table, figures[at]) for at, table in enumerate(section.tables)],
        "ranks": _plot(ranks),
    }


def _facts(section: Section) -> list[tuple[str, str]]:
    counts = Counter(record.status for row in section.taken.values() for record in row.values())
    planned = len(section.tables) * len(section.scope.points) * len(section.scope.seeds)
    states = ", ".join(f"{count} {status}" for status, count in sorted(counts.items(), key=lambda one: -one[1]))
    missing = planned - sum(counts.values())
    return [
        ("track", section.suite.track),
        ("problems", str(len(section.tables))),
        ("rows", str(len(section.scope.points))),
        ("seeds", str(len(section.scope.seeds))),
        ("baseline", str(section.suite.baseline) if section.suite.baseline else "none"),
        ("trials", states + (f", {missing} not run" if missing else "")),
    ]


def _problem(section: Section, number: int, at: int, table: Table, figures: Iterable[Figure]) -> dict[str, Any]:
    words = Counter(
        value.word for row in table.rows for value in row.values.values() if isinstance(value, Quantity) and value.word
    )
    return {
        "id": f"problem-{number}-{at}",
        "key": f"{number}.{at}",
        "title": table.title,
        "spec": problem_line(table),
        "verdicts": [(word, words[word]) for word in ("better", "worse", "equivalent", "inconclusive") if words[word]],
        "notes": table.notes,
        "citation": table.citation,
        "figures": [_plot(figure) for figure in figures],
    }


def _plot(figure: Figure) -> dict[str, Any]:
    """The figure as the template shows it: drawn once for each width a screen may give it."""
    widths = [] if figure.draw is None else [*([WIDE] if figure.wide else []), HALF, NARROW]
    drawings = [
        (f"w{width}", inline(figure.draw(width), f"{figure.key}-{width}", figure.title))
        for width in widths
        if figure.draw is not None
    ]
    return {
        "key": figure.key, "title": figure.title, "caption": figure.caption, "wide": figure.wide, "drawings": drawings,
    }  # fmt: skip


def _environments(places: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a field, with the packages' versions among them."""
    flat = [{**{k: v for k, v in place.items() if k != "packages"}, **place.get("packages", {})} for place in places]
    names = dict.fromkeys(name for place in flat for name in place)
    lines = []
    for name in names:
        values = [_word(place.get(name)) for place in flat]
        lines.append({"name": name.replace("_", " "), "values": values, "differs": len(set(values)) > 1})
    return lines


def _word(value: Any) -> str:
    if value is None or value == []:
        return "none"
    if isinstance(value, list):
        return "; ".join(map(_word, value))
    return ", ".join(map(str, value.values())) if isinstance(value, dict) else str(value)


def _policy(script: str) -> str:
    """Nothing is fetched, and no script runs but ours, whatever the page's text holds."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; base-uri 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )


def _colours() -> str:
    """The palette as CSS variables, light and dark."""
    light = {**LIGHT, **{name: one for name, (one, _) in EXTRA.items()}}
    dark = {**DARK, **{name: one for name, (_, one) in EXTRA.items()}}
    on_light, on_dark = ("".join(f"--{name}: {one}; " for name, one in some.items()) for some in (light, dark))
    return (
        f":root {{ color-scheme: light; {on_light}}}\n"
        f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {{ color-scheme: dark; {on_dark}}} }}\n"
        f":root[data-theme=dark] {{ color-scheme: dark; {on_dark}}}\n"
    )


def _asset(name: str) -> str:
    return (resources.files("harness.report.page") / name).read_text(encoding="utf-8")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_asset("report.html.j2"))
