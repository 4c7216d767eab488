"""LaTeX: one file that pdflatex compiles as it is, and that a paper may \\input."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby
from string import ascii_lowercase

from harness.tables.model import Column, Quantity, Row, Table, Value
from harness.tables.writers import EMPTY, marked, name, problem_line, writer

# LaTeX lets \documentclass be \@twoclasseserror once it has been used: then a document is there already.
_START = r"""% Compiles as it is; in a paper, \input this file after \usepackage{booktabs,graphicx}.
\expandafter\ifx\csname @twoclasseserror\endcsname\documentclass
  \let\harnessend\relax
\else
  \documentclass[a4paper]{article}
  \usepackage[utf8]{inputenc}
  \usepackage[landscape,margin=15mm]{geometry}
  \usepackage{booktabs,graphicx}
  \pagestyle{empty}
  \def\harnessend{\end{document}}
  \begin{document}
\fi
"""
_END = "\\harnessend\n"
_SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", **{char: f"\\{char}" for char in "&%$#_{}"},
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "Δ": r"$\Delta$", "†": r"$^{\dagger}$", "±": r"$\pm$",
    "\u00d7": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$", "µ": r"$\mu$", "μ": r"$\mu$", "∞": r"$\infty$",
    "\u2212": "$-$", "\u2013": "--", "\u2014": "---", "\u2019": "'", "\u2018": "`",
}  # fmt: skip
_SEPARATOR, _BREAK = re.compile(r"([|:@,])"), r"\1\\allowbreak "
_SIGN = re.compile(r"(?<![\w.)\]])([+-])(?=[\d.]|inf)")


@writer("latex", "tex")
def latex(tables: Sequence[Table]) -> str:
    """A floating table each, with the protocol in its caption and its notes below."""
    return "\n".join([_START, *map(_floating, tables), _END])


def escape(text: str) -> str:
    """Plain text as LaTeX; the sign of a number becomes a real minus or plus, and what pdflatex has no letter for is
    written as its code point.

    >>> escape("a_b: -3%")
    'a\\\\_b: $-$3\\\\%'
    """
    signed = _SIGN.split(text)
    return "".join(f"${part}$" if at % 2 else "".join(map(_letter, part)) for at, part in enumerate(signed))


def _letter(char: str) -> str:
    if char in _SPECIAL:
        return _SPECIAL[char]
    if char.isascii() or "\u00a1" <= char <= "\u017f":
        return char if char.isprintable() or char == "\n" else " "
    plain = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
    return "".join(_SPECIAL.get(one, one) for one in plain) or f"U+{ord(char):04X}"


def _code(text: str) -> str:
    """Text in a typewriter face that may be broken between its fields."""
    upright = escape(text).replace(r"\textbar{}", "|")  # the typewriter face has one, and no other to fall back to
    return rf"\texttt{{{_SEPARATOR.sub(_BREAK, upright)}}}"


def _floating(table: Table) -> str:
    letters = _letters(table)
    rows = [_line([_name(table, row, letters), *_values(table, row)]) for row in table.rows]
    aligned = "".join("l" if column.text else "r" for column in table.columns)
    notes = [
        rf"\textsuperscript{{{letters[number]}}}\,{escape(note)}\par" if number in letters else rf"{escape(note)}\par"
        for number, note in enumerate(table.notes, 1)
        if note not in table.protocol
    ]
    return "\n".join(
        [
            *([f"% {table.citation.id}"] if table.citation else []),
            r"\begin{table}[htbp]",
            r"\centering\small",
            rf"\caption[{{{escape(f'{table.suite}: {table.title}')}}}]{{{_caption(table)}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{@{{}}{aligned}@{{}}}}",
            r"\toprule",
            *_heads(table.columns),
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}}",
            r"\par\medskip\begin{minipage}{\linewidth}\footnotesize\raggedright",
            *notes,
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def _caption(table: Table) -> str:
    parts = [f"{table.caption}: {table.title}" if table.caption else f"{table.suite}: {table.title}"]
    sentences = [escape(parts[0]) + ".", escape(f"{problem_line(table)}.")]
    if table.protocol:
        sentences.append("Protocol: " + "; ".join(map(_code, table.protocol)) + ".")
    if table.citation:
        sentences.append(f"Table {_code(table.citation.id)}, made by {_code(table.citation.command)}.")
    return " ".join(sentences)


def _letters(table: Table) -> dict[int, str]:
    """Letters of the notes that belong to rows, by the note's number."""
    numbers = range(table.general + 1, len(table.notes) + 1)
    return {number: _counted(at) for at, number in enumerate(numbers)}


def _counted(at: int) -> str:
    """a, b, ... z, aa, ab, ..."""
    high, low = divmod(at, len(ascii_lowercase))
    return (_counted(high - 1) if high else "") + ascii_lowercase[low]


def _heads(columns: Sequence[Column]) -> list[str]:
    """The heading: a metric's name above its columns, and theirs below."""
    above, rules, below, at = [], [], [], 1
    for group, members in groupby(columns, key=lambda column: column.group):
        some = list(members)
        first = some[0]
        if group and len(some) > 1:
            above.append(rf"\multicolumn{{{len(some)}}}{{c}}{{{escape(first.heading)}}}")
            rules.append(rf"\cmidrule(lr){{{at}-{at + len(some) - 1}}}")
            below += ["value", *(escape(column.heading) for column in some[1:])]
        else:
            above += [""] * len(some)
            below += [escape(column.heading) for column in some]
        at += len(some)
    return [_line(above), " ".join(rules), _line(below)] if rules else [_line(below)]


def _name(table: Table, row: Row, letters: dict[int, str]) -> str:
    marks = ",".join(letters[number] for number in row.notes)
    return escape(name(table, row)) + (rf"\textsuperscript{{{marks}}}" if marks else "")


def _values(table: Table, row: Row) -> list[str]:
    return [_cell(row.values.get(column.key)) for column in table.columns[1:]]


def _cell(value: Value) -> str:
    if not isinstance(value, Quantity):
        return EMPTY * 2 if value is None else escape(value)
    number = marked(value, "BEST{}", "{}†")
    number = rf"\textbf{{{escape(number[4:])}}}" if number.startswith("BEST") else escape(number)
    interval = rf"{{\scriptsize {escape(value.interval)}}}" if value.interval else ""
    return " ".join(part for part in (number, interval, escape(value.word)) if part)


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
