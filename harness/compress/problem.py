"""What a compression method is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from harness.models import ModelHandle
    from harness.packed import PackedWeight

Batch = dict[str, Tensor]
"""Keyword arguments of one forward pass of the model (input_ids, pixel_values, ...); the first axis is the sample.
`labels`, where there are any, are for the problem's loss only."""


class LayerProblem:
    """One weight matrix with the calibration inputs that reach it.

    `weight` is the layer's 2-D view (outputs m x inputs n, float32; a convolution's kernel is flattened to
    channels * height * width) and must not be modified. Inputs are computed when first asked for, by running the
    enclosing block on the outputs of the compressed prefix; a method that never asks costs no forward pass.
    """

    def __init__(
        self,
        name: str,
        weight: Tensor,
        *,
        generator: torch.Generator,
        inputs: Callable[[], Iterator[Tensor]] | None = None,
        paired: Callable[[], Iterator[tuple[Tensor, Tensor]]] | None = None,
        statistics: dict[str, Any] | None = None,
        dtype: torch.dtype = torch.float16,
    ):
        self.name = name
        self.weight = weight
        self.generator = generator
        self.dtype = dtype
        self.log: dict[str, float] = {}
        """Numbers a method wants kept with the solution, such as the loss that it minimised."""
        self._inputs = inputs
        self._paired = paired
        # Layers fed by the same activation (q, k and v) are handed one dictionary, so each statistic is computed once.
        self._statistics = {} if statistics is None else statistics

    def inputs(self) -> Iterator[Tensor]:
        """Calibration inputs, (tokens, n) float32 a batch, in the same order at every call."""
        if self._inputs is None:
            raise ValueError(f"layer {self.name} has no calibration inputs")
        return self._inputs()

    def paired_inputs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs in the compressed prefix, inputs in the original model) on identical tokens."""
        if self._paired is None:
            raise ValueError(f"layer {self.name} has no paired calibration inputs")
        return self._paired()

    def statistic(self, key: str, compute: Callable[[LayerProblem], Any]) -> Any:
        """`compute(self)`, remembered for all layers with the same input."""
        if key not in self._statistics:
            self._statistics[key] = compute(self)
        return self._statistics[key]

    def hessian(self) -> Tensor:
        """(n, n) float32: 2/N sum x xT over the calibration inputs, undamped. Shared; it must not be modified."""
        from harness.compress.statistics import hessian

        return self.statistic("hessian", hessian)

    def dense(self) -> PackedWeight:
        """The weight as the checkpoint stores it: what 16 bits, zero sparsity and full rank give back."""
        from harness.packed import Dense

        return Dense(self.weight.to(self.dtype))


@dataclass
class CompressProblem:
    """A model to compress, with calibration data.

    `layers` names the modules to compress: by default the linear layers and convolutions inside the blocks; embeddings,
    norms and the head stay as stored. `model` is a private copy: `walk_blocks` writes the compressed weights into it.
    """

    handle: ModelHandle
    model: nn.Module
    calibration: Sequence[Batch]
    generator: torch.Generator
    device: torch.device = torch.device("cpu")
    layers: Sequence[str] | None = None
    loss: Callable[[nn.Module, Batch], Tensor] | None = None
