"""What every stored format of a weight has in common, and the registry of formats.

A packed weight is a frozen dataclass. Its tensor fields ARE the stored format (bit-packed codes, scales, masks...), its
other fields a few numbers and words that describe it. Size is the bytes of the tensors, so it is measured and never
declared. A new format is such a dataclass with a `shape` and a `dequantize`, registered by `@packed("name")`, here or
in any package that the harness discovers.

Stored tensors are contiguous and aligned. BLAS adds up in another order where a factor is transposed or begins at an
odd address, and the outputs of a weight must not depend on whether it was saved and loaded.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from harness.errors import BadInput, nearest

Kind = TypeVar("Kind", bound="type[PackedWeight]")
_kinds: dict[str, type[PackedWeight]] = {}
ALIGNMENT = 64
"""Bytes: what torch's own allocations are multiples of. Tensors inside a file need not be."""


def part(role: str, *, optional: bool = False) -> Any:
    """A dataclass field that is stored: a tensor, or a tuple of packed weights when the role is "parts".

    `role` says what its bits are spent on: codes, scales, zeros, codebook, mask, index, values, lowrank, dense,
    permutation...
    """
    metadata = {"role": role}
    return dataclasses.field(default=None, metadata=metadata) if optional else dataclasses.field(metadata=metadata)


class PackedWeight(ABC):
    """A weight matrix (outputs m x inputs n) in a stored format."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(m, n) of the weight it stands for."""

    @abstractmethod
    def dequantize(self) -> Tensor:
        """The weight, (m, n) float32: the reference that every kernel of this format is held to."""

    def tensors(self) -> dict[str, Tensor]:
        """The stored format by part name; parts of a composite are named 0_codes, 0_scale, 1_A..."""
        stored: dict[str, Tensor] = {}
        for name, _, value in self._stored():
            if isinstance(value, tuple):
                stored |= {f"{i}_{k}": tensor for i, p in enumerate(value) for k, tensor in p.tensors().items()}
            else:
                stored[name] = value
        return stored

    def meta(self) -> dict[str, Any]:
        """What the tensors do not say, as JSON: bits, group size, the kinds of a composite's parts."""
        described = {f.name: getattr(self, f.name) for f in _fields(self) if "role" not in f.metadata}
        for name, _, value in self._stored():
            if isinstance(value, tuple):
                described[name] = [{"kind": p.kind, "meta": p.meta()} for p in value]
        return described

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> PackedWeight:
        """The inverse of `tensors()` and `meta()`. Raises BadInput where they do not fit each other."""
        try:
            values = dict(meta)
            for field in _fields(cls):
                if field.metadata.get("role") == "parts":
                    described = enumerate(meta[field.name])
                    values[field.name] = tuple(
                        unpack(p["kind"], _of_number(tensors, i), p["meta"]) for i, p in described
                    )
                elif field.name in tensors:
                    values[field.name] = tensors[field.name]
            return cls(**values)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise BadInput(f"packed weight of kind {cls.kind}: {error}") from error

    def budget(self) -> dict[str, int]:
        """Stored bits by role."""
        bits: dict[str, int] = {}
        for _, role, value in self._stored():
            parts = [p.budget() for p in value] if isinstance(value, tuple) else [{role: 8 * value.nbytes}]
            for spent in parts:
                for key, count in spent.items():
                    bits[key] = bits.get(key, 0) + count
        return bits

    @property
    def bits(self) -> int:
        return sum(self.budget().values())

    @property
    def bits_per_weight(self) -> float:
        return self.bits / (self.shape[0] * self.shape[1])

    @property
    def multiply_adds(self) -> int:
        """Multiplications with stored weights that one input row needs: executed work, which size does not tell."""
        return self.shape[0] * self.shape[1]

    def matmul(self, x: Tensor) -> Tensor:
        """x (..., n) times the transposed weight, (..., m) in the dtype of x."""
        return x @ self.dequantize().to(x.dtype).T

    def to(self, device: torch.device | str) -> PackedWeight:
        """The same weight on another device; the stored dtypes never change."""
        return unpack(self.kind, {name: tensor.to(device) for name, tensor in self.tensors().items()}, self.meta())

    def _stored(self) -> list[tuple[str, str, Any]]:
        fields = [(f.name, f.metadata["role"], getattr(self, f.name)) for f in _fields(self) if "role" in f.metadata]
        return [item for item in fields if item[2] is not None]

    def __repr__(self) -> str:
        m, n = self.shape
        return f"{type(self).__name__}({m}x{n}, {self.bits_per_weight:.3f} bits per weight)"


def packed(kind: str) -> Callable[[Kind], Kind]:
    """Register a stored format under the name that files keep."""

    def register(cls: Kind) -> Kind:
        other = _kinds.get(kind)
        if other and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"packed weight {kind!r} is registered twice: in {other.__module__} and {cls.__module__}")
        cls.kind = kind
        _lay_out_after(cls)
        _kinds[kind] = cls
        return cls

    return register


def unpack(kind: str, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> PackedWeight:
    """The packed weight of that kind. Raises BadInput for an unknown kind and for tensors that do not fit it."""
    if kind not in _kinds:
        from harness.registry import discover

        discover()
    if kind not in _kinds:
        raise BadInput(f"unknown kind of packed weight {kind!r}; {nearest(str(kind), _kinds)}")
    return _kinds[kind].from_tensors(tensors, meta)


def kinds() -> list[str]:
    """Names of the registered formats."""
    return sorted(_kinds)


def narrowed(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """The tensor in the dtype it is stored in. Raises ValueError for numbers that this dtype does not hold."""
    stored = tensor.to(dtype).contiguous()
    if not bool(stored.isfinite().all()):
        raise ValueError(f"{name} holds numbers that are not finite in {dtype}")
    return stored


def _lay_out_after(cls: type[PackedWeight]) -> None:
    """Make the stored tensors of every new weight of this class contiguous and aligned."""
    initialise: Any = cls.__init__

    @functools.wraps(initialise)
    def initialise_and_lay_out(self: PackedWeight, *args: Any, **values: Any) -> None:
        initialise(self, *args, **values)
        for name, _, value in self._stored():
            if isinstance(value, Tensor) and (not value.is_contiguous() or value.data_ptr() % ALIGNMENT):
                object.__setattr__(self, name, value.clone(memory_format=torch.contiguous_format))

    cls.__init__ = initialise_and_lay_out  # type: ignore[assignment, method-assign]


def _fields(weight: PackedWeight | type[PackedWeight]) -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(weight)  # type: ignore[arg-type]


def _of_number(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    prefix = f"{number}_"
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
