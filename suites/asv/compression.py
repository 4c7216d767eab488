"""The core methods of the compress track, each on a model of two small blocks that is made up on the spot."""

from __future__ import annotations

from harness import registry
from harness.compress.samples import llama_problem
from harness.tracks import compress

METHODS = {
    "rtn": {"bits": 4, "group_size": 64},
    "gptq": {"bits": 4, "group_size": 64},
    "awq": {"bits": 4, "group_size": 64},
    "magnitude": {"sparsity": 0.5},
    "wanda": {"sparsity": 0.5},
    "random_mask": {"sparsity": 0.5},
    "svd": {"ratio": 0.8},
    "fwsvd": {"ratio": 0.8},
}


class Compress:
    """Seconds of the whole solution, calibration included."""

    params = tuple(METHODS)
    param_names = ("method",)

    def setup(self, name: str) -> None:
        self.entry = registry.get(name, track="compress")
        self.values = {key: parameter.default for key, parameter in self.entry.params.items()} | METHODS[name]
        self.problem = llama_problem()

    def time_solve(self, name: str) -> None:
        compress.solve(self.entry, llama_problem(), self.values)
