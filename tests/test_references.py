"""methods/references.bib: every paper that a method or metric names is there, complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import methods
from harness import registry

SOURCE = (Path(methods.__file__).parent / "references.bib").read_text()
ENTRIES = re.findall(r"^@(\w+)\{([^,\s]+),\n(.*?)^\}", SOURCE, re.MULTILINE | re.DOTALL)
FIELDS = {
    key: dict(re.findall(r"^\s*(\w+)\s*=\s*\{(.*?)\}(?:,?)\s*$", body, re.MULTILINE | re.DOTALL))
    for _, key, body in ENTRIES
}
KEYS = {entry.paper for kind in ("method", "metric") for entry in registry.entries(kind) if entry.paper}


@pytest.mark.parametrize("key", sorted(KEYS))
def test_paper_of_a_registered_function_is_listed(key):
    assert key in FIELDS


@pytest.mark.parametrize("key", sorted(FIELDS))
def test_entry_is_complete(key):
    fields = FIELDS[key]
    assert {"title", "author", "year"} <= fields.keys()
    assert fields.keys() & {"booktitle", "journal"}
    assert fields.keys() & {"url", "eprint"}
    assert re.fullmatch(r"(19|20)\d\d", fields["year"])
    assert all(re.fullmatch(r"[^,]+, [^,]+", author) for author in re.split(r"\s+and\s+", fields["author"]))
    assert all(value.count("{") == value.count("}") for value in fields.values())


def test_every_entry_is_read_and_keys_are_unique():
    assert len(ENTRIES) == SOURCE.count("@") == len(FIELDS)
