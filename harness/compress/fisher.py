"""Empirical Fisher information of weights: how much the task's loss depends on them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from harness.compress.problem import Batch, CompressProblem
from harness.models.families import layer_names

Loss = Callable[[nn.Module, Batch], Tensor]


def empirical_fisher(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Batch],
    names: Sequence[str],
    *,
    reduce: Callable[[str, Tensor], Tensor] = lambda name, squares: squares,
) -> dict[str, Tensor]:
    """The mean over samples of the squared gradient of the loss, one tensor for each named parameter.

    I = 1/|D| sum_d (dL(d)/dW)^2 with true labels and the model in evaluation mode (paper key hsu2022fwsvd, equation 6).
    The gradient is squared sample by sample: squaring that of a batch's mean loss would tend to zero at the optimum.
    Each parameter's gradient is squared, passed to `reduce(name, squares)` and freed as soon as it is known, so that
    no more than one full gradient is held; `reduce` (linear) says what is kept of it. Sums are float64.
    The model's parameters, mode and gradients are left as they were. Raises ValueError without samples.
    """
    sums: dict[str, Tensor] = {}
    count = 0
    with _watched(model, names, reduce, sums):
        for sample in split_samples(batches):
            loss(model, sample).backward()
            count += 1
    if not count:
        raise ValueError("no calibration samples")
    return {name: sums[name] / count for name in names}


def compressed_layers(problem: CompressProblem) -> dict[str, nn.Module]:
    """The layers that the problem asks to compress, by full name, in the order of their blocks."""
    found = {}
    for block in problem.handle.family.block_names(problem.model):
        for local in layer_names(problem.model.get_submodule(block)):
            name = f"{block}.{local}".strip(".")
            if problem.layers is None or name in problem.layers:
                found[name] = problem.model.get_submodule(name)
    return found


def split_samples(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Batches of one sample each."""
    for batch in batches:
        size = len(next(iter(batch.values())))
        for row in range(size):
            yield {key: value[row : row + 1] for key, value in batch.items()}


@contextlib.contextmanager
def _watched(
    model: nn.Module, names: Sequence[str], reduce: Callable[[str, Tensor], Tensor], sums: dict[str, Tensor]
) -> Iterator[None]:
    """Within: each backward pass adds the squared gradients of the named parameters to `sums`; no other has one."""
    parameters = dict(model.named_parameters())
    before = {name: (parameter.requires_grad, parameter.grad) for name, parameter in parameters.items()}
    training = model.training

    def collector(name: str) -> Callable[[Tensor], None]:
        def collect(parameter: Tensor) -> None:
            if parameter.grad is not None:
                sums[name] = sums.get(name, 0) + reduce(name, parameter.grad.square()).double()
                parameter.grad = None

        return collect

    handles = []
    try:
        model.eval()
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in names)
            parameter.grad = None
        for name in names:
            handles.append(parameters[name].register_post_accumulate_grad_hook(collector(name)))
            sums[name] = torch.zeros_like(reduce(name, parameters[name].detach()), dtype=torch.float64)
        with torch.enable_grad():
            yield
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
        for name, (required, gradient) in before.items():
            parameters[name].requires_grad_(required)
            parameters[name].grad = gradient
