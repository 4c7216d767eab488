"""Every registered method keeps the contract of its track. Nobody lists the methods: they are discovered."""

from __future__ import annotations

import pytest

from harness import registry
from harness.check import check

METHODS = [entry.key[1] for entry in registry.entries("method") if entry.module.startswith("methods.")]


@pytest.mark.parametrize("name", METHODS)
def test_method_keeps_the_contract(name):
    report = check(name)
    assert report.rows
    assert report.ok, "\n".join(f"{row.check}: {row.detail}" for row in report.rows if not row.ok)


def test_the_methods_of_the_package_are_discovered():
    assert {"compress.dense", "compress.gptq", "train.adamw"} <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_the_summary_fits_a_line_of_the_list(name):
    summary = registry.get(name).summary
    assert summary.endswith((".", ":"))
    assert len(summary) <= 120
