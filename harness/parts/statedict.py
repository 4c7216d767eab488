"""Algebra on state dictionaries: task vectors, their sums and norms, and flat vectors of a whole network.

A task vector is what fine-tuning added: tau = theta - theta0 (Ilharco et al. 2023). Everything is computed in float32
and given back in the base's types. Only floating-point tensors take part; what counts (a number of batches seen) stays
the base's. Running statistics of batch norm are averaged like weights; `harness.parts.batchnorm` computes them anew.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness.errors import BadInput

State = dict[str, Tensor]


def state_of(model: nn.Module) -> State:
    """A model's tensors, copied, each once: of tied weights the first name stands for all."""
    seen: set[tuple] = set()
    found: State = {}
    for name, tensor in model.state_dict().items():
        place = (tensor.data_ptr(), tuple(tensor.shape))
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        found[name] = tensor.detach().clone()
    return found


def loaded(template: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a model with other tensors; tied weights follow the one that is named."""
    model = copy.deepcopy(template)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name in state:
                tensor.copy_(state[name])
    return model


def linear_weights(model: nn.Module) -> set[str]:
    """Names of the weights of a model's linear layers, embeddings they are tied to excluded."""
    tied = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module.weight) not in tied
    }


def copied(state: Mapping[str, Tensor]) -> State:
    """Tensors of its own: what is done to them leaves the module they came from as it is."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def floats(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that are numbers to compute with."""
    return [name for name, tensor in state.items() if tensor.is_floating_point()]


def check_same(a: Mapping[str, Tensor], b: Mapping[str, Tensor], what: str, than: str = "the base") -> None:
    """BadInput unless both hold tensors of the same names and shapes; `what` names the second."""
    for name in [*a, *b]:
        if name not in a or name not in b:
            has, lacks = (than, what) if name in a else (what, than)
            raise BadInput(f"{what} does not fit {than}: tensor {name} is in {has} and not in {lacks}")
        if a[name].shape != b[name].shape:
            shapes = f"{list(b[name].shape)}, in {than} {list(a[name].shape)}"
            raise BadInput(f"{what} does not fit {than}: tensor {name} has shape {shapes}")


def sub(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> State:
    """The task vector a - b, in float32. Raises BadInput where shapes differ."""
    check_same(b, a, "a model to merge")
    return {name: a[name].float() - b[name].float() for name in floats(b)}


def axpy(base: Mapping[str, Tensor], terms: Iterable[tuple[float, Mapping[str, Tensor]]]) -> State:
    """base + sum_i c_i tau_i, in the base's types."""
    total = {name: base[name].float().clone() for name in floats(base)}
    for factor, vector in terms:
        for name in total:
            total[name] += factor * vector[name]
    return with_floats(base, total)


def with_floats(base: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> State:
    """A whole state: `values` in the base's types, and copies of what they leave out."""
    return {name: values[name].to(tensor.dtype) if name in values else tensor.clone() for name, tensor in base.items()}


def mean(states: Iterable[Mapping[str, Tensor]]) -> State:
    """The average of models, read one at a time. Raises BadInput for none, and where shapes differ."""
    first: Mapping[str, Tensor] | None = None
    total: State = {}
    count = 0
    for state in states:
        if first is None:
            first, total = state, {name: torch.zeros_like(state[name], dtype=torch.float32) for name in floats(state)}
        check_same(first, state, "a model to merge", "the first")
        for name in total:
            total[name] += state[name].float()
        count += 1
    if first is None:
        raise BadInput("there is no model to average; it takes at least 1")
    return with_floats(first, {name: tensor / count for name, tensor in total.items()})


def interpolate(a: Mapping[str, Tensor], b: Mapping[str, Tensor], t: float) -> State:
    """(1 - t) a + t b; exactly a or b at the ends."""
    if t in (0.0, 1.0):
        return copied(b if t else a)
    return with_floats(a, {name: torch.lerp(a[name].float(), b[name].float(), t) for name in floats(a)})


def dot(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Inner product over all tensors, summed in float64."""
    return sum(float((a[name].double() * b[name].double()).sum()) for name in a)


def global_norm(vector: Mapping[str, Tensor]) -> float:
    """Euclidean norm over all tensors, as of one long vector."""
    return dot(vector, vector) ** 0.5


def trimmed(vector: Mapping[str, Tensor], density: float) -> State:
    """A task vector whose largest numbers are kept, the part `density` of all of them (Yadav et al. 2023, step 1)."""
    flat = torch.cat([tensor.abs().flatten() for tensor in vector.values()])
    kept = round(density * len(flat))
    least = torch.topk(flat, kept).values[-1] if kept else torch.inf
    return {name: torch.where(tensor.abs() >= least, tensor, 0.0) for name, tensor in vector.items()}


def elected(vectors: Sequence[Mapping[str, Tensor]]) -> State:
    """Of several task vectors, at each place the mean of the numbers that have the sign of their sum (Yadav et al.
    2023, steps 2 and 3)."""
    result: State = {}
    for name in vectors[0]:
        stack = torch.stack([vector[name] for vector in vectors])
        agrees = (stack.sign() == stack.sum(0).sign()) & (stack != 0)
        result[name] = (stack * agrees).sum(0) / agrees.sum(0).clamp(min=1)
    return result


@dataclass(frozen=True)
class Layout:
    """Where each floating-point tensor of a network is in its flat vector: names and shapes, in order."""

    shapes: dict[str, torch.Size]

    @classmethod
    def of(cls, state: Mapping[str, Tensor], names: Iterable[str] | None = None) -> Layout:
        return cls({name: state[name].shape for name in (floats(state) if names is None else names)})

    @property
    def size(self) -> int:
        return sum(shape.numel() for shape in self.shapes.values())

    def flatten(self, state: Mapping[str, Tensor]) -> Tensor:
        """(size,) float32."""
        return torch.cat([state[name].float().flatten() for name in self.shapes])

    def unflatten(self, vector: Tensor) -> State:
        """The tensors of a vector (size,)."""
        parts = vector.split([shape.numel() for shape in self.shapes.values()])
        return {name: part.view(shape).clone() for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
