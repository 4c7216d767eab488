"""The tables of the ledger, and how per-item scores are stored in them."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from harness.scores import Scores

FORMAT = "harness-ledger"
VERSION = 2
"""Of the tables below. A ledger with a higher one was written by a newer version of the harness."""
UPGRADES = ((2, "ALTER TABLE records ADD COLUMN log JSON"),)
"""What takes a ledger of the version before to one with this number."""

metadata = MetaData()
meta = Table("meta", metadata, Column("key", String(40), primary_key=True), Column("value", Text))
environments = Table("environments", metadata, Column("hash", String(64), primary_key=True), Column("body", JSON))
records = Table(
    "records",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("cell", String(64)),
    Column("track", String(40)),
    Column("method", String(200), index=True),
    Column("version", String(64)),
    Column("given", JSON),
    Column("params", JSON),
    Column("spec", JSON),
    Column("content", JSON),
    Column("model", Text),
    Column("seed", BigInteger),
    Column("item_limit", BigInteger),
    Column("status", String(20)),
    Column("reason", Text),
    Column("traceback", Text),
    Column("metrics", JSON),
    Column("size", JSON),
    Column("cost", JSON),
    Column("log", JSON),
    Column("environment", String(64)),
    Column("created", Float(53)),
)
# Which record fills a cell of a suite. Numbered, so that a suite is listed in the order it was filled in, unsorted.
members = Table(
    "members",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("suite", String(200)),
    Column("cell", String(64)),
    Column("hash", String(64)),
    UniqueConstraint("suite", "cell"),
    Index("members_in_order", "suite", "number"),
)
# What does not change from one method to the next (names, sizes, targets and blocks of the items) is stored once.
item_sets = Table(
    "item_sets", metadata, Column("hash", String(64), primary_key=True), Column("count", Integer),
    Column("body", LargeBinary),
)  # fmt: skip
scores = Table(
    "scores",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("metric", String(400), primary_key=True),
    Column("item_set", String(64)),
    Column("item_values", LargeBinary),
)
leases = Table(
    "leases", metadata, Column("hash", String(64), primary_key=True), Column("owner", String(100), index=True),
    Column("beat", Float(53)),
)  # fmt: skip


def pack_array(values: np.ndarray) -> bytes:
    """Doubles, little-endian, deflated lightly: 0/1 scores shrink thirtyfold, others stay as they are."""
    return zlib.compress(np.asarray(values, "<f8").tobytes(), 1)


def unpack_array(blob: bytes) -> np.ndarray:
    return np.frombuffer(zlib.decompress(blob), "<f8")


def item_set(taken: Scores) -> tuple[str, bytes]:
    """(hash, JSON) of everything in scores that belongs to the items and not to the method."""
    body = {
        "ids": list(taken.ids),
        "blocks": None if taken.blocks is None else list(taken.blocks),
        "weights": None if taken.weights is None else taken.weights.tolist(),
        "targets": None if taken.targets is None else taken.targets.tolist(),
    }
    text = json.dumps(body, separators=(",", ":")).encode()
    return hashlib.sha256(text).hexdigest(), text


def restore(values: np.ndarray, items: Mapping[str, Any], summary: Mapping[str, Any]) -> Scores:
    """The scores that were stored: values, their item set, and what the record says of the metric."""
    return Scores(
        items["ids"],
        values,
        summary["signature"],
        summary["summary"],
        unit=summary["unit"],
        higher_is_better=summary["higher_is_better"],
        weights=items["weights"],
        targets=items["targets"],
        blocks=items["blocks"],
        extra={name: value for name, value in summary["extra"].items() if value is not None},
        nested=summary.get("nested", False),
    )
