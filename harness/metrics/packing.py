"""Batches of token sequences in which shared beginnings are computed once.

Sequences are sorted, so those with a common beginning are neighbours; a row of a batch is the prefix tree of some
neighbours, written in preorder. Token j is an ancestor of token i exactly if `j <= i < end[j]`, where `end[j]` is where
j's subtree ends: one comparison makes the attention mask of a whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

SHARED_PART = 0.25
"""A sequence joins a row when at least this part of it is there already; a longer row has its price in attention."""
ROW_LIMIT = 512
"""Most tokens of a row with several sequences, unless one sequence alone is half as long."""


@dataclass(frozen=True)
class Batch:
    """Rows of tokens, padded on the right, and which of their predictions are wanted.

    `tokens`, `depth` (position of a token in its own sequence) and `end` are (rows, length) int64; `tree` says whether
    any row branches. `keep` (K,) are the positions, in the flattened batch, whose logits are needed; prediction e reads
    row `source[e]` of these logits for the token `target[e]`, and belongs to the sequence `owner[e]`. Predictions are
    sorted by `source`.
    """

    tokens: np.ndarray
    depth: np.ndarray
    end: np.ndarray
    tree: bool
    keep: np.ndarray
    source: np.ndarray
    target: np.ndarray
    owner: np.ndarray


@dataclass
class _Row:
    """A prefix tree under construction; `path` holds the row's positions of the newest sequence."""

    tokens: list[np.ndarray] = field(default_factory=list)
    depths: list[np.ndarray] = field(default_factory=list)
    closed: list[tuple[np.ndarray, int]] = field(default_factory=list)
    members: list[tuple[int, np.ndarray]] = field(default_factory=list)
    path: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    length: int = 0
    tree: bool = False

    def add(self, index: int, inputs: np.ndarray, shared: int) -> None:
        added = len(inputs) - shared
        self.closed.append((self.path[shared:], self.length))
        follows = not self.length or self.path[shared - 1] == self.length - 1
        self.tree = self.tree or (added > 0 and not follows)
        self.tokens.append(inputs[shared:])
        self.depths.append(np.arange(shared, len(inputs)))
        self.path = np.concatenate((self.path[:shared], np.arange(self.length, self.length + added)))
        self.length += added
        self.members.append((index, self.path))


def pack(sequences: Sequence[np.ndarray], scored: Sequence[int], budget: int, *, share: bool = True) -> list[Batch]:
    """Batches of at most `budget` tokens (or one row), longest rows first.

    `sequences` are int32 arrays of at least two tokens; of each, the last `scored` tokens are predicted, so its last
    token is never an input. Every sequence is in exactly one batch.
    """
    rows = sorted(_rows(sequences, share), key=lambda row: -row.length)
    batches = []
    first = 0
    while first < len(rows):
        count = max(1, budget // rows[first].length)
        batches.append(_batch(rows[first : first + count], sequences, scored))
        first += count
    return batches


def _rows(sequences: Sequence[np.ndarray], share: bool) -> Iterator[_Row]:
    # Big-endian bytes compare as the tokens do, and much faster.
    order = sorted(range(len(sequences)), key=lambda i: sequences[i].astype(">i4").tobytes())
    row, last = _Row(), np.empty(0, np.int32)
    for index in order:
        inputs = sequences[index][:-1]
        shared = _common(last, inputs) if share else 0
        limit = max(ROW_LIMIT, 2 * len(inputs))
        fits = shared >= max(2, SHARED_PART * len(inputs)) and row.length + len(inputs) - shared <= limit
        if row.members and not fits:
            yield row
            row, shared = _Row(), 0
        elif not row.members:
            shared = 0
        row.add(index, inputs, shared)
        last = inputs
    if row.members:
        yield row


def _common(first: np.ndarray, second: np.ndarray) -> int:
    """Length of the common beginning."""
    length = min(len(first), len(second))
    different = first[:length] != second[:length]
    where = int(different.argmax()) if length else 0
    return where if length and different[where] else length


def _batch(rows: list[_Row], sequences: Sequence[np.ndarray], scored: Sequence[int]) -> Batch:
    length = rows[0].length
    tokens = np.zeros((len(rows), length), np.int64)
    depth = np.zeros((len(rows), length), np.int64)
    # A position that pads is a tree of its own: it attends to itself and nobody to it.
    end = np.tile(np.arange(1, length + 1), (len(rows), 1))
    source, target, owner = [], [], []
    for number, row in enumerate(rows):
        tokens[number, : row.length] = np.concatenate(row.tokens)
        depth[number, : row.length] = np.concatenate(row.depths)
        end[number, : row.length] = row.length
        for positions, stop in row.closed:
            end[number, positions] = stop
        for index, path in row.members:
            count = scored[index]
            source.append(path[-count:] + number * length)
            target.append(sequences[index][-count:])
            owner.append(np.full(count, index))
    keep, where = np.unique(np.concatenate(source), return_inverse=True)
    order = np.argsort(where, kind="stable")
    targets, owners = np.concatenate(target).astype(np.int64)[order], np.concatenate(owner)[order]
    return Batch(tokens, depth, end, any(row.tree for row in rows), keep, where[order], targets, owners)
