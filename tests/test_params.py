"""Hyper-parameters: what a signature accepts, and the expressions that set them."""

from __future__ import annotations

from typing import Annotated, Literal, Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import BadInput, Bits, Count, Dataset, Fraction, GroupSize, Positive, Range
from harness.params import Expression, bind, complete, format_call, parse_expression, signature_params


def example(
    problem: object,
    *,
    bits: Bits = 4,
    group_size: GroupSize = 128,
    clip: Literal["minmax", "mse"] = "minmax",
    damping: Annotated[float, Range(0.0, 1.0)] = 0.01,
    sparsity: Fraction = 0.5,
    rate: Positive = 1e-3,
    symmetric: bool = False,
    steps: Optional[Count] = None,  # noqa: UP045 - both ways of writing it must work
    limit: int | None = None,
    dataset: Dataset = "wikitext2",
) -> None:
    """A method with a parameter of every kind."""


PARAMS = signature_params(example, "example")


def points(text: str) -> list[dict]:
    return list(bind(parse_expression(text), PARAMS, "example"))


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("gptq", "gptq", {}),
        ("gptq()", "gptq", {}),
        (" lion-k ", "lion-k", {}),
        ("gptq(bits=3, group_size=-1)", "gptq", {"bits": 3, "group_size": -1}),
        ("rtn(bits=[2, 3], clip=[minmax, mse])", "rtn", {"bits": [2, 3], "clip": ["minmax", "mse"]}),
        ("ppl(dataset=open-english-text, context=512)", "ppl", {"dataset": "open-english-text", "context": 512}),
        ("f(a=true, b=none, c=False, d=None)", "f", {"a": True, "b": None, "c": False, "d": None}),
        ("f(pattern='2:4', x=1e-3, e=[])", "f", {"pattern": "2:4", "x": 1e-3, "e": []}),
        ("f(name=gpt-2)", "f", {"name": "gpt-2"}),
    ],
)
def test_expressions(text: str, name: str, values: dict) -> None:
    assert parse_expression(text) == Expression(name, values)


@pytest.mark.parametrize(
    "text",
    [
        "", "(", "gptq(bits=)", "gptq(3)", "gptq(**x)", "gptq(bits=3)(x=2)", "gptq(bits=3, bits=4)", "a b",
        "gptq(bits=__import__('os').system('true'))", "gptq(bits=1+1)", "f" + "(" * 5000, "f(a=\0)", "[1]", "x[0](a=1)",
    ],
)  # fmt: skip
def test_what_is_no_expression_is_one_line(text: str) -> None:
    with pytest.raises(BadInput) as error:
        parse_expression(text)
    assert "\n" not in str(error.value)


WORDS = st.from_regex(r"[a-z][a-z0-9]*([-_][a-z][a-z0-9]*)*", fullmatch=True)
VALUES = st.one_of(
    st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none(), WORDS, st.text()
)


@settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["a", "b_c", "d2"]), st.one_of(VALUES, st.lists(VALUES, max_size=3))))
def test_formatting_and_parsing_are_inverse(values: dict) -> None:
    assert parse_expression(format_call("name", values)) == Expression("name", values)


@pytest.mark.parametrize("word", ["raise", "lambda", "true", "none", "True", "a--b", "-a", "a-1", "x-01", "é", "K"])
def test_words_that_mean_something_else_unquoted_are_quoted(word: str) -> None:
    assert parse_expression(format_call("f", {"a": word})).values == {"a": word}


def test_a_grid_is_every_combination_in_the_order_of_the_signature() -> None:
    assert points("example(clip=[minmax, mse], bits=[2, 3])") == [
        {"bits": 2, "clip": "minmax"},
        {"bits": 2, "clip": "mse"},
        {"bits": 3, "clip": "minmax"},
        {"bits": 3, "clip": "mse"},
    ]
    assert points("example") == [{}]


def test_values_take_the_type_of_their_parameter() -> None:
    (point,) = points("example(damping=1, steps=none, limit=3, symmetric=true)")
    assert point == {"damping": 1.0, "steps": None, "limit": 3, "symmetric": True}
    assert type(point["damping"]) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("example(bits=0)", "example: bits=0 is not accepted; it takes one of 1, 2, 3, 4, 5, 6, 7, 8, 16"),
        ("example(bits=17)", "bits=17 is not accepted"),
        ("example(bits='four')", "bits='four' is not accepted"),
        ("example(bits=four)", "bits='four' is not accepted"),
        ("example(bits=4.0)", "bits=4.0 is not accepted"),
        ("example(bits=true)", "bits=True is not accepted"),
        ("example(bits=none)", "bits=None is not accepted"),
        ("example(bits=[2, [3]])", "bits=[3] is not accepted"),
        ("example(bits=[])", "bits=[] is an empty grid"),
        ("example(group_size=0)", "group_size=0 is not accepted; it takes an integer of at least 1, or -1"),
        ("example(clip=maxmin)", "clip='maxmin' is not accepted; it takes one of 'minmax', 'mse'"),
        ("example(damping=1.5)", "damping=1.5 is not accepted; it takes a number from 0.0 to 1.0"),
        ("example(damping=1e999)", "damping=inf is not finite"),
        ("example(sparsity=-0.1)", "sparsity=-0.1 is not accepted"),
        ("example(rate=0)", "rate=0.0 is not accepted"),
        ("example(symmetric=1)", "symmetric=1 is not accepted; it takes true or false"),
        ("example(steps=0)", "steps=0 is not accepted; it takes an integer at least 1 or None"),
        ("example(dataset='')", "dataset='' is not accepted; it takes the name of a dataset"),
        ("example(bit=3)", "example has no parameter 'bit'; did you mean bits"),
    ],
)
def test_what_is_not_accepted_is_named_with_what_is(text: str, message: str) -> None:
    with pytest.raises(BadInput) as error:
        points(text)
    assert message in str(error.value)


def test_a_required_parameter_left_out() -> None:
    def needs(problem: object, *, task: str) -> None: ...

    params = signature_params(needs, "needs")
    with pytest.raises(BadInput, match="needs needs task: a word"):
        list(bind(parse_expression("needs"), params, "needs"))


def test_complete_fills_in_the_defaults() -> None:
    filled = complete({"bits": 2}, PARAMS)
    assert filled["bits"] == 2
    assert filled["clip"] == "minmax"
    assert set(filled) == set(PARAMS)


def test_parameters_say_what_they_accept() -> None:
    accepted = {name: param.accepted for name, param in PARAMS.items()}
    assert accepted["group_size"] == "an integer of at least 1, or -1 for the whole row"
    assert accepted["limit"] == "an integer or None"
    assert accepted["damping"] == "a number from 0.0 to 1.0"
    assert PARAMS["dataset"].names_data
    assert not PARAMS["clip"].names_data


def test_a_signature_must_be_typed_and_its_defaults_valid() -> None:
    def untyped(problem: object, *, bits=4) -> None: ...

    def strange(problem: object, *, bits: dict = {}) -> None: ...  # noqa: B006

    def wrong(problem: object, *, bits: Bits = 9) -> None: ...

    with pytest.raises(TypeError, match="bits has no type annotation"):
        signature_params(untyped, "untyped")
    with pytest.raises(TypeError, match="use int, float"):
        signature_params(strange, "strange")
    with pytest.raises(BadInput, match="bits=9"):
        signature_params(wrong, "wrong")
