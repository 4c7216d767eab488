"""Packing: whatever the sequences, every prediction sees exactly its own sequence."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness.metrics.packing import ROW_LIMIT, pack

# Few tokens and short sequences: many begin alike, some are equal or the beginning of another.
SEQUENCES = st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=12), min_size=1, max_size=40)


@given(SEQUENCES, st.data(), st.sampled_from([1, 16, 64, 4096]), st.booleans())
def test_every_prediction_descends_from_its_own_beginning(lists, data, budget, share):
    sequences = [np.array(tokens, dtype=np.int32) for tokens in lists]
    scored = [data.draw(st.integers(1, len(tokens) - 1)) for tokens in lists]
    seen = Counter()
    for batch in pack(sequences, scored, budget, share=share):
        rows, length = batch.tokens.shape
        assert rows == 1 or rows * length <= budget
        assert share or not batch.tree
        assert (np.diff(batch.source) >= 0).all()
        for source, target, owner in zip(batch.source, batch.target, batch.owner, strict=True):
            row, place = divmod(int(batch.keep[source]), length)
            ancestors = np.flatnonzero((np.arange(length) <= place) & (place < batch.end[row]))
            depth = len(ancestors)
            assert batch.depth[row, ancestors].tolist() == list(range(depth))
            assert batch.tokens[row, ancestors].tolist() == lists[owner][:depth]
            assert target == lists[owner][depth]
            if not batch.tree:
                assert ancestors.tolist() == list(range(place + 1))
            seen[int(owner), depth] += 1
    expected = Counter((i, d) for i, tokens in enumerate(lists) for d in range(len(tokens) - scored[i], len(tokens)))
    assert seen == expected


def test_common_beginnings_are_computed_once():
    context = np.arange(100, dtype=np.int32)
    sequences = [np.concatenate((context, np.full(20, answer, np.int32))) for answer in range(4)]
    (batch,) = pack(sequences, [20] * 4, 4096)
    assert batch.tokens.shape == (1, 100 + 4 * 19)
    assert len(batch.keep) == 1 + 4 * 19  # the four answers' first tokens are predicted from one position
    (apart,) = pack(sequences, [20] * 4, 4096, share=False)
    assert apart.tokens.shape == (4, 119)


def test_equal_sequences_are_computed_once():
    sequences = [np.arange(10, dtype=np.int32)] * 50
    (batch,) = pack(sequences, [5] * 50, 4096)
    assert batch.tokens.shape == (1, 9)
    assert not batch.tree
    assert len(batch.owner) == 250


def test_a_padding_position_attends_to_itself_alone():
    (batch,) = pack([np.arange(9, dtype=np.int32), np.array([50, 51, 52], dtype=np.int32)], [1, 1], 64)
    length = batch.tokens.shape[1]
    for place in range(2, length):
        assert np.flatnonzero((np.arange(length) <= place) & (place < batch.end[1])).tolist() == [place]


def test_rows_stay_short():
    sequences = [np.array([1, 2, 3, 4, *divmod(i, 64)], dtype=np.int32) for i in range(4000)]
    assert max(batch.tokens.shape[1] for batch in pack(sequences, [1] * 4000, 1 << 20)) <= ROW_LIMIT
