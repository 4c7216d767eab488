"""Rows and the baseline rows they are compared with."""

from __future__ import annotations

from harness.engine.pairing import pair_with_baseline
from harness.params import parse_expression


def row(method: str, **params: object) -> tuple[str, dict]:
    return method, params


def test_a_row_meets_the_baseline_row_with_its_bits_and_group_size() -> None:
    rows = [
        row("rtn", bits=3, group_size=64, clip="minmax"),
        row("rtn", bits=4, group_size=64, clip="minmax"),
        row("rtn", bits=4, group_size=64, clip="mse"),
        row("gptq", bits=4, group_size=64, damping=0.01, clip="mse"),
        row("gptq", bits=3, group_size=64, damping=0.01, clip="minmax"),
    ]
    assert pair_with_baseline(rows, parse_expression("rtn(clip=minmax)")) == [None, None, 1, 1, 0]


def test_without_agreement_a_single_baseline_row_serves() -> None:
    rows = [row("rtn", bits=3), row("gptq", bits=4), row("svd", ratio=0.5)]
    assert pair_with_baseline(rows, parse_expression("rtn")) == [None, 0, 0]


def test_an_arbitrary_choice_is_not_made() -> None:
    rows = [row("rtn", bits=3), row("rtn", bits=4), row("dense"), row("gptq", bits=2)]
    assert pair_with_baseline(rows, parse_expression("rtn")) == [None, None, None, None]


def test_a_baseline_may_have_no_parameters_or_not_be_there() -> None:
    rows = [row("dense"), row("rtn", bits=3), row("random_mask", sparsity=0.5)]
    assert pair_with_baseline(rows, parse_expression("dense")) == [None, 0, 0]
    assert pair_with_baseline(rows, parse_expression("random-mask")) == [2, 2, None]
    assert pair_with_baseline(rows, parse_expression("awq")) == [None, None, None]
    assert pair_with_baseline(rows, None) == [None, None, None]


def test_a_baseline_may_list_values() -> None:
    rows = [row("rtn", bits=2), row("rtn", bits=3), row("gptq", bits=3), row("gptq", bits=2)]
    assert pair_with_baseline(rows, parse_expression("rtn(bits=[3, 4])")) == [1, None, 1, 1]
