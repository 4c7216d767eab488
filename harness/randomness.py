"""The global random generators: nothing should draw from them, and these functions see to what happens if it does."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

# The global state of numpy is what is looked at here, so its old interface is used on purpose.


def random_state() -> dict[str, Any]:
    """The state of the global generators, for comparison."""
    import torch

    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return {"torch": torch.get_rng_state().tolist(), "numpy": (name, list(keys), rest), "random": random.getstate()}


@contextlib.contextmanager
def restored_random_state() -> Iterator[None]:
    """The global generators are what they were, whatever happens inside."""
    import torch

    kept = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        yield
    finally:
        torch.set_rng_state(kept[0])
        np.random.set_state(kept[1])  # noqa: NPY002
        random.setstate(kept[2])


def seed_everything(seed: int) -> None:
    """Seed them all; torch's only where it has been imported."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)
