"""Datasets that come with the packages the project stands on: nothing to download."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def digits(split: str) -> pa.Table:
    """scikit-learn's 1,797 handwritten digits, 8 x 8 with values 0 to 16, in a fixed shuffled 80/20 split.

    Columns: `image` (64 uint8 values, row by row), `label`, `item` (the row in scikit-learn's order).
    """
    import numpy as np
    import pyarrow as pa
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    cut = len(order) * 4 // 5
    rows = order[:cut] if split == "train" else order[cut:]
    return pa.table(
        {
            "image": pa.array(list(bunch.data[rows].astype(np.uint8)), type=pa.list_(pa.uint8(), 64)),
            "label": pa.array(bunch.target[rows].astype(np.int64)),
            "item": pa.array(rows.astype(np.int64)),
        }
    )


def diabetes(split: str) -> pa.Table:
    """scikit-learn's 442 diabetes patients: ten measurements as they were taken, and the disease's `progression`."""
    import pyarrow as pa
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    columns = {name: pa.array(bunch.data[:, at]) for at, name in enumerate(bunch.feature_names)}
    return pa.table({**columns, "progression": pa.array(bunch.target)})
