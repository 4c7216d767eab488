"""BibTeX entries of the papers that registered functions name."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from pathlib import Path

from harness import registry
from harness.registry import Entry

FILE = "references.bib"


def bibtex(entry: Entry) -> str | None:
    """The BibTeX entry of a method's or metric's paper, from `references.bib` beside its top-level package; None if
    it names no paper, or one that is not in the file."""
    if entry.paper is None:
        return None
    file = importlib.import_module(entry.module.partition(".")[0]).__file__
    path = Path(file or "").parent / FILE
    return find(path.read_text(encoding="utf-8"), entry.paper) if path.is_file() else None


def find(text: str, key: str) -> str | None:
    """The entry `@type{key, ...}` of a BibTeX file, by counting braces."""
    start = re.search(rf"^@\w+\{{\s*{re.escape(key)}\s*,", text, re.MULTILINE)
    if start is None:
        return None
    depth = 0
    for at in range(start.start(), len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0 and text[at] == "}":
            return text[start.start() : at + 1]
    return None


def references(methods: Iterable[str], metrics: Iterable[str], track: str | None = None) -> tuple[list[str], list[str]]:
    """(BibTeX entries of the papers of methods and metrics, each once; names of the methods that have none)."""
    entries = [registry.get(name, track=track) for name in dict.fromkeys(methods)]
    entries += [registry.get(name, "metric") for name in dict.fromkeys(metrics)]
    found = [(entry, bibtex(entry)) for entry in entries]
    without = [entry.name for entry, text in found if text is None and entry.kind == "method"]
    return list(dict.fromkeys(text for _, text in found if text)), without
