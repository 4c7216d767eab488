"""Interpolated modified Kneser-Ney (Chen and Goodman 1999, section 3.6): what counting alone can do on the same tokens.

p_n(w | h) = max(c(h w) - D(c), 0) / c(h) + gamma(h) p_{n-1}(w | h'), where h' is h without its first token, c counts
occurrences at the highest order and distinct left neighbours below it, D is one of three discounts, and gamma makes
the sum 1. The last step is uniform over the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class _Order:
    """All n-grams of one order: sorted keys and, for each context, what interpolation needs."""

    keys: np.ndarray
    discounted: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    gammas: np.ndarray


class KneserNey:
    """An n-gram model of a token stream. `vocabulary` ** `order` must fit into 63 bits."""

    def __init__(self, tokens: np.ndarray, vocabulary: int, order: int = 5):
        self.vocabulary, self.bits = vocabulary, (vocabulary - 1).bit_length()
        if self.bits * order > 63:
            raise ValueError(f"{order}-grams of {vocabulary} words do not fit into 63 bits")
        keys, counts = np.unique(_keys(tokens, order, self.bits), return_counts=True)
        orders = [self._order(keys, counts)]
        for n in range(order - 1, 0, -1):
            keys, counts = np.unique(keys & ((1 << n * self.bits) - 1), return_counts=True)
            orders.insert(0, self._order(keys, counts))
        self.orders = orders

    def _order(self, keys: np.ndarray, counts: np.ndarray) -> _Order:
        ones = [int((counts == k).sum()) for k in range(1, 5)]
        y = ones[0] / max(1, ones[0] + 2 * ones[1])
        discounts = [k - (k + 1) * y * ones[k] / max(1, ones[k - 1]) for k in (1, 2, 3)]
        # With too few n-grams an estimate can leave its range; at 0 nothing would be left for words not seen.
        taken = np.clip(discounts, 1e-3, (1, 2, 3))[np.minimum(counts, 3) - 1]
        contexts, first = np.unique(keys >> self.bits, return_index=True)
        totals = np.add.reduceat(counts, first)
        return _Order(keys, counts - taken, contexts, totals, np.add.reduceat(taken, first) / totals)

    def probabilities(self, grams: np.ndarray) -> np.ndarray:
        """Probability of the last token of each row of `grams` (N, order) given those before it."""
        p = np.full(len(grams), 1 / self.vocabulary)
        for n, order in enumerate(self.orders, start=1):
            keys = _pack(grams[:, grams.shape[1] - n :], self.bits)
            context, known = _find(order.contexts, keys >> self.bits)
            gram, seen = _find(order.keys, keys)
            counted = np.where(seen, order.discounted[gram], 0.0) / order.totals[context]
            p = np.where(known, counted + order.gammas[context] * p, p)
        return p

    def log_probabilities(self, tokens: np.ndarray) -> np.ndarray:
        """Log-probability, in nats, of tokens[order - 1:], each given the order - 1 tokens before it."""
        grams = np.lib.stride_tricks.sliding_window_view(tokens, len(self.orders))
        return np.concatenate(
            [np.log(self.probabilities(part)) for part in np.array_split(grams, 1 + len(grams) // 2**18)]
        )


def _pack(grams: np.ndarray, bits: int) -> np.ndarray:
    """Rows of tokens as one integer each, the last token lowest."""
    keys = np.zeros(len(grams), dtype=np.int64)
    for column in grams.T:
        keys = (keys << bits) | column.astype(np.int64)
    return keys


def _keys(tokens: np.ndarray, order: int, bits: int) -> np.ndarray:
    return _pack(np.lib.stride_tricks.sliding_window_view(tokens, order), bits)


def _find(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of `wanted` in sorted `keys`, and whether they are there."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return place, keys[place] == wanted
