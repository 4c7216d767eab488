"""Hyper-parameters: their types and ranges, read from a function's signature, and the expressions that set them.

A parameter's accepted values are its annotation: a plain type, a `Literal`, an `Optional`, or an `Annotated` type with
`Range` or `OneOf`. An expression `gptq(bits=[2, 3], group_size=64)` names a registered function and its parameters; a
list of values is a grid.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import keyword
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from harness.errors import BadInput, nearest


@dataclass(frozen=True)
class Range:
    """A closed interval of numbers; `None` leaves a side open."""

    low: float | None = None
    high: float | None = None

    def accepts(self, value: Any) -> bool:
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        if self.high is None:
            return f"at least {self.low}"
        return f"at most {self.high}" if self.low is None else f"from {self.low} to {self.high}"


@dataclass(frozen=True)
class OneOf:
    """A fixed set of values."""

    values: tuple

    def accepts(self, value: Any) -> bool:
        return value in self.values

    def __str__(self) -> str:
        return "one of " + ", ".join(map(repr, self.values))


@dataclass(frozen=True)
class GroupLimit:
    """A number of consecutive columns, or -1 for all of them."""

    def accepts(self, value: Any) -> bool:
        return value == -1 or value >= 1

    def __str__(self) -> str:
        return "of at least 1, or -1 for the whole row"


@dataclass(frozen=True)
class DataName:
    """Marks a parameter that names a dataset: its content hash becomes part of the signature."""

    def accepts(self, value: Any) -> bool:
        return bool(value)

    def __str__(self) -> str:
        return "the name of a dataset"


Bits = Annotated[int, OneOf((1, 2, 3, 4, 5, 6, 7, 8, 16))]
"""Bits of a stored weight code; 16 keeps the weight as the checkpoint stores it."""
GroupSize = Annotated[int, GroupLimit()]
"""Consecutive input columns that share a scale; -1 is the whole row."""
Fraction = Annotated[float, Range(0.0, 1.0)]
Positive = Annotated[float, Range(1e-30, None)]
Weight = Annotated[float, Range(0.0, None)]
"""A factor of a term: a weight decay, the strength of a penalty."""
Count = Annotated[int, Range(1, None)]
Dataset = Annotated[str, DataName()]

_TYPE_NAMES = {int: "an integer", float: "a number", str: "a word", bool: "true or false"}


@dataclass(frozen=True)
class Param:
    """One keyword-only hyper-parameter of a registered function."""

    name: str
    type: type
    default: Any
    limits: tuple = ()
    optional: bool = False

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    @property
    def names_data(self) -> bool:
        return any(isinstance(limit, DataName) for limit in self.limits)

    @property
    def accepted(self) -> str:
        words = [str(limit) for limit in self.limits]
        if not any(isinstance(limit, OneOf | DataName) for limit in self.limits):
            words.insert(0, _TYPE_NAMES[self.type])
        if self.optional:
            words.append("or None")
        return " ".join(words)

    def check(self, value: Any, owner: str) -> Any:
        """The value in the parameter's type, or BadInput naming owner, parameter, value and what is accepted."""
        if value is None and self.optional:
            return None
        exact = self.type is float and isinstance(value, int) and not isinstance(value, bool)
        if type(value) is not self.type and not exact:
            raise BadInput(f"{owner}: {self.name}={value!r} is not accepted; it takes {self.accepted}")
        value = self.type(value)
        if self.type is float and not math.isfinite(value):
            raise BadInput(f"{owner}: {self.name}={value!r} is not finite; it takes {self.accepted}")
        if not all(limit.accepts(value) for limit in self.limits):
            raise BadInput(f"{owner}: {self.name}={value!r} is not accepted; it takes {self.accepted}")
        return value


def _unwrap(hint: Any, owner: str, name: str) -> tuple[type, tuple, bool]:
    """(python type, limits, optional) of an annotation."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        base, *extras = typing.get_args(hint)
        kind, limits, optional = _unwrap(base, owner, name)
        return kind, (*limits, *(extra for extra in extras if hasattr(extra, "accepts"))), optional
    if origin is Literal:
        values = typing.get_args(hint)
        return type(values[0]), (OneOf(values),), False
    if origin in (typing.Union, types.UnionType):
        inner = [arg for arg in typing.get_args(hint) if arg is not type(None)]
        if len(inner) == 1:
            kind, limits, _ = _unwrap(inner[0], owner, name)
            return kind, limits, True
    if hint in _TYPE_NAMES:
        return hint, (), False
    raise TypeError(f"{owner}: parameter {name} is annotated {hint!r}; use int, float, str, bool, Literal or Annotated")


def signature_params(function: Callable, owner: str) -> dict[str, Param]:
    """The keyword-only parameters of a function, with types and limits from its annotations."""
    hints = typing.get_type_hints(function, include_extras=True)
    params = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        if name not in hints:
            raise TypeError(f"{owner}: parameter {name} has no type annotation")
        kind, limits, optional = _unwrap(hints[name], owner, name)
        params[name] = Param(name, kind, parameter.default, limits, optional)
        if not params[name].required and parameter.default is not None:
            params[name].check(parameter.default, owner)
    return params


@dataclass(frozen=True)
class Expression:
    """A name with parameter values, as written: lists are grids."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return format_call(self.name, self.values)


def format_call(name: str, values: Mapping[str, Any]) -> str:
    """`name(key=value, ...)`, strings bare where that is unambiguous; `name` alone without parameters."""
    if not values:
        return name
    return f"{name}({', '.join(f'{key}={_format(value)}' for key, value in values.items())})"


_BARE = re.compile(r"[A-Za-z_]\w*(-([A-Za-z_]\w*|0|[1-9]\d*))*", re.ASCII)
_CONSTANTS = {"true": True, "false": False, "none": None}


def _format(value: Any) -> str:
    if isinstance(value, str) and _BARE.fullmatch(value) and not any(map(_reserved, value.split("-"))):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(_format, value))}]"
    if isinstance(value, Mapping):  # of a problem; no parameter is one
        return format_call("", value)
    return repr(value)


def _reserved(word: str) -> bool:
    """Whether a word would be read as something else than itself."""
    return keyword.iskeyword(word) or word in _CONSTANTS


def parse_expression(text: str) -> Expression:
    """Read `name`, `name()` or `name(key=value, key=[value, ...])`. Bare words are strings (`clip=mse`, `gpt-2`)."""
    source = text.strip()
    try:
        node = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise BadInput(f"expression {text!r} cannot be read; write name or name(parameter=value, ...)") from None
    if isinstance(node, ast.Call):
        if node.args or any(pair.arg is None for pair in node.keywords):
            raise BadInput(f"expression {text!r}: parameters are given by name, as name(parameter=value)")
        names = [str(pair.arg) for pair in node.keywords]
        if len(set(names)) < len(names):
            raise BadInput(f"expression {text!r} gives a parameter twice")
        values = {str(pair.arg): _literal(pair.value, text) for pair in node.keywords}
        return Expression(_word(node.func, text), values)
    return Expression(_word(node, text))


def _word(node: ast.AST, text: str) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_word(node.value, text)}.{node.attr}"
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        return f"{_word(node.left, text)}-{_word(node.right, text)}"
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return str(node.value)
    raise BadInput(f"expression {text!r} cannot be read; write name or name(parameter=value, ...)")


def _literal(node: ast.AST, text: str) -> Any:
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item, text) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        word = _word(node, text)
        return _CONSTANTS.get(word, word)


def bind(expression: Expression, params: Mapping[str, Param], owner: str) -> Iterator[dict[str, Any]]:
    """Every point of the expression's grid, checked: the values given, in the order of the signature.

    Raises BadInput for an unknown parameter (suggesting the nearest), a value out of range, an empty list, or a
    required parameter left out.
    """
    for name, value in expression.values.items():
        if name not in params:
            raise BadInput(f"{owner} has no parameter {name!r}; {nearest(name, params)}")
        if value == []:
            raise BadInput(f"{owner}: {name}=[] is an empty grid; it takes at least one value")
    missing = [name for name, param in params.items() if param.required and name not in expression.values]
    if missing:
        raise BadInput(f"{owner} needs {missing[0]}: {params[missing[0]].accepted}")
    axes = []
    for name, param in params.items():
        if name in expression.values:
            given = expression.values[name]
            values = given if isinstance(given, list) else [given]
            axes.append([(name, param.check(value, owner)) for value in values])
    for point in itertools.product(*axes):
        yield dict(point)


def complete(values: Mapping[str, Any], params: Mapping[str, Param]) -> dict[str, Any]:
    """The values with every default filled in: what identifies a trial."""
    return {name: values.get(name, param.default) for name, param in params.items()}
