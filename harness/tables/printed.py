"""Tables read back from what they were written as: a paper's LaTeX, Markdown, JSON or CSV.

What is read is text by row and column, whatever the format. A recomputed table is written in the same format and read
by the same reader, so that the two can be compared cell by cell; rows and columns may be fewer or in another order.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import BadInput, nearest
from harness.tables.citation import ID

_COMMENT, _FLOAT = re.compile(r"(?<!\\)%.*"), re.compile(r"\\(?:begin|end)\{table")
_WORD = r"(?:'[^'\n]+'|[^\s`\"{}<]+)"
_COMMAND = re.compile(rf"harness (?:run|table) {_WORD}(?: --(?:seeds|limit|model|correction) {_WORD})*")


@dataclass(frozen=True)
class Printed:
    """One printed table: its id, the command that makes it ("" where none stands beside it), its cells by (row,
    column), and the sentences around it."""

    id: str
    command: str
    cells: dict[tuple[str, str], str]
    notes: list[str] = field(default_factory=list)


def read_printed(path: Path) -> list[Printed]:
    """The tables of a file that have an id. Raises BadInput for a file that cannot be read or has none."""
    form = _READERS.get(path.suffix)
    if form is None:
        raise BadInput(f"{path}: is no .tex, .md, .json or .csv file; {nearest(path.suffix, _READERS)}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadInput(f"{path}: cannot be read: {reason}") from None
    tables = list(form.read(text, path))
    if not tables:
        raise BadInput(f"{path}: holds no table with an id (harness:SUITE:PROBLEM:...); `harness table` writes one")
    return tables


def format_of(path: Path) -> str:
    """The name of the format that a file is read as."""
    return _READERS[path.suffix].name


def parse(text: str, path: Path) -> list[Printed]:
    """The tables of a text, read as the file `path` is."""
    return list(_READERS[path.suffix].read(text, path))


def _markdown(text: str, path: Path) -> Iterator[Printed]:
    """Tables of pipes; the id is what follows the table, or else stands before it."""
    blocks = list(re.finditer(r"(?:^\|.*\|[ \t]*$\n?){3,}", text, re.MULTILINE))
    for block, before, after in _surrounded(text, blocks):
        found = ID.search(after) or _last(before)
        if found is None:
            continue
        lines = [_pipes(line) for line in block.splitlines()]
        heads = _distinct(lines[0][1:])
        cells = {(_row(line[0]), head): cell for line in lines[2:] for head, cell in zip(heads, line[1:], strict=False)}
        notes = re.findall(r"^\d+\. (.*)$", after, re.MULTILINE)
        title = re.findall(r"^[^|#\n].*: .*$", before.rpartition("## ")[2], re.MULTILINE)
        yield Printed(found.group(), _command(after), cells, [*title, *notes])


def _pipes(line: str) -> list[str]:
    cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
    return [re.sub(r"\*\*(.*?)\*\*", r"\1*", cell.replace(r"\|", "|").strip()) for cell in cells]


def _latex(text: str, path: Path) -> Iterator[Printed]:
    """Tabulars; the id is what stands before the table, or else follows it."""
    blocks = list(re.finditer(r"\\begin\{tabular\}.*?\\end\{tabular\}", text, re.DOTALL))
    for block, before, after in _surrounded(text, blocks):
        found = _last(_joined(before)) or ID.search(_joined(_FLOAT.split(_COMMENT.sub("", after))[0]))
        if found is None:
            continue
        head, _, body = block.partition(r"\midrule")
        heads = _distinct(_heads(head)[1:])
        cells: dict[tuple[str, str], str] = {}
        for line in re.findall(r"^(.*?)\\\\[ \t]*$", body, re.MULTILINE):
            first, *rest = (plain(cell) for cell in re.split(r"(?<!\\)&", line))
            cells |= {(_row(first), name): cell for name, cell in zip(heads, rest, strict=False)}
        caption = _argument(before, r"\caption")
        notes = [plain(line) for line in re.findall(r"^(.*)\\par$", after, re.MULTILINE)]
        command = _command(plain(_joined(caption)))
        yield Printed(found.group(), command, cells, [plain(_joined(caption)), *map(_row, notes)])


def _heads(head: str) -> list[str]:
    """Headings of a tabular: a heading that spans columns is put before theirs."""
    lines = [line for line in re.findall(r"^(.*?)\\\\[ \t]*$", head, re.MULTILINE) if "&" in line]
    spread: list[list[str]] = []
    for line in lines:
        spread.append([])
        for cell in re.split(r"(?<!\\)&", line):
            span = re.match(r"\s*\\multicolumn\{(\d+)\}\{[^}]*\}(.*)", cell, re.DOTALL)
            spread[-1] += [plain(span.group(2) if span else cell)] * (int(span.group(1)) if span else 1)
    return [" ".join(filter(None, parts)) for parts in zip(*spread, strict=False)]


_LATEX = (
    (r"\\textbf\{([^{}]*)\}", r"\1*"), (r"\\textsuperscript\{[^{}]*\}", ""), (r"\\texttt\b|\\scriptsize\b", ""),
    (r"\$?\^\{?\\dagger\}?\$?", "†"), (r"\\uparrow", "↑"), (r"\\downarrow", "↓"), (r"\\Delta", "Δ"),
    (r"\\text(?:bar|less|greater|backslash|asciitilde|asciicircum)\{\}", "|"), (r"\\(?:allowbreak|,|;|quad)\s?", ""),
    (r"\\([&%$#_{}])", r"\1"), (r"(?<!\\)[{}$]", ""), (r"\\[a-zA-Z]+\s?", ""), (r"\s+", " "),
)  # fmt: skip


def plain(latex: str) -> str:
    """What a piece of LaTeX reads as: bold becomes a star behind it, marks of notes and typefaces go."""
    for pattern, text in _LATEX:
        latex = re.sub(pattern, text, latex)
    return latex.strip()


def _joined(text: str) -> str:
    return text.replace(r"\allowbreak ", "")


def _argument(text: str, command: str) -> str:
    """The last braced argument of the last use of a command, by counting braces."""
    at = text.rfind(command)
    start = text.find("]{", at) + 1 if text[at + len(command) :].startswith("[") else text.find("{", at)
    if at < 0 or start < 1:
        return ""
    depth = 0
    for end in range(start, len(text)):
        depth += (text[end] == "{") - (text[end] == "}") if text[end - 1] != "\\" else 0
        if depth == 0:
            return text[start + 1 : end]
    return ""


def _json(text: str, path: Path) -> Iterator[Printed]:
    try:
        tables = json.loads(text)["tables"]
        for table in tables:
            if "id" in table:
                yield Printed(table["id"], table["command"], dict(_flat(table)), [*table["notes"], *table["protocol"]])
    except (ValueError, LookupError, TypeError, AttributeError):
        raise BadInput(f"{path}: is no JSON that `harness table` writes") from None


def _flat(table: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], str]]:
    """Cells of a JSON table; numbers as they are written, ends of intervals and words in columns of their own."""
    first = table["columns"][0]["key"]
    for row in table["rows"]:
        name = row["values"][first]
        yield (name, "params"), json.dumps(row["params"], sort_keys=True)
        for key, value in row["values"].items():
            parts = value.items() if isinstance(value, dict) else [("", value)]
            yield from (((name, f"{key} {part}".strip()), "" if one is None else str(one)) for part, one in parts)


def _csv(text: str, path: Path) -> Iterator[Printed]:
    rows: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        if ID.fullmatch(row.get("table") or ""):
            rows.setdefault(row["table"], []).append(row)
    for identity, some in rows.items():
        cells = {
            (f"{row['method']} {row['parameters']}", key): value or ""
            for row in some
            for key, value in row.items()
            if key not in ("method", "parameters", "table", "command", "notes")
        }
        yield Printed(identity, some[0].get("command") or "", cells, [row.get("notes") or "" for row in some])


def _surrounded(text: str, blocks: list[re.Match[str]]) -> Iterator[tuple[str, str, str]]:
    """Each block with the text from the block before it and up to the next."""
    for at, block in enumerate(blocks):
        start = blocks[at - 1].end() if at else 0
        end = blocks[at + 1].start() if at + 1 < len(blocks) else len(text)
        yield block.group(), text[start : block.start()], text[block.end() : end]


def _last(text: str) -> re.Match[str] | None:
    return next(reversed(list(ID.finditer(text))), None)


def _command(text: str) -> str:
    found = _COMMAND.search(text)
    return found.group().rstrip(".,;") if found else ""


def _row(text: str) -> str:
    """A row's name without the numbers of its notes."""
    return re.sub(r"(\s*\[\d+\])+$", "", text).strip()


def _distinct(heads: list[str]) -> list[str]:
    """Headings with those that occur again told apart by what stands before: Δ is the difference of its metric."""
    named: list[str] = []
    for head in heads:
        bare = head in ("Δ", "Δ ln")
        named.append(f"{named[-1]} {head}" if bare and named else head)
    return named


@dataclass(frozen=True)
class _Reader:
    name: str
    read: Callable[[str, Path], Iterator[Printed]]


_READERS = {
    ".md": _Reader("markdown", _markdown),
    ".tex": _Reader("latex", _latex),
    ".json": _Reader("json", _json),
    ".csv": _Reader("csv", _csv),
}
