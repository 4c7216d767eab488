"""A benchmark harness for compression and training methods of neural networks.

Everything an author of a method needs is importable from here; names are loaded when first used, so that the command
line answers before torch is imported.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "harness.errors": ("BadInput", "TrialFailed"),
    "harness.params": ("Bits", "Count", "Dataset", "Fraction", "GroupSize", "OneOf", "Positive", "Range", "Weight"),
    "harness.registry": ("Claim", "method", "metric"),
    "harness.scores": ("Scores",),
    "harness.solution": ("Solution",),
    "harness.problem": ("Problem",),
    "harness.tasks": ("Batch", "Split", "Task"),
    "harness.train.fit": ("fit", "fit_phases"),
    "harness.train.loop": ("Phase",),
    "harness.tracks.train": ("TrainProblem",),
    "harness.tracks.predict": ("PredictProblem", "Predictor"),
    "harness.tracks.policy": ("PolicyProblem",),
    "harness.tracks.latency": ("LayerShape",),
    "harness.tracks.adapt": ("AdaptProblem",),
    "harness.tracks.continual": ("ContinualProblem",),
    "harness.tracks.generate": ("GenerateProblem",),
    "harness.tracks.merge": ("Expert", "MergeProblem"),
    "harness.tracks.distill": ("DistillProblem", "LanguageDistillProblem"),
    "harness.tracks.search": ("SearchProblem",),
    "harness.compress.problem": ("CompressProblem", "LayerProblem"),
    "harness.compress": ("compress_layers", "inverse_factor", "solve_columns", "walk_blocks"),
    "harness.packed": (
        "BitPlanes",
        "Codebook",
        "DFloat11",
        "Dense",
        "LowRank",
        "PackedWeight",
        "SemiStructured",
        "Sparse",
        "Sum",
        "Ternary",
        "Uniform",
    ),
    "harness.metrics.subject": ("Subject",),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
