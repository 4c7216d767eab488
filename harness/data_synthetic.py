"""A small generated language whose entropy is known exactly, so that a model's loss can be read above its floor.

A paragraph opens with a topic word that colours nouns and adjectives until the next one. A sentence is

    determiner adjective* noun (of noun)* verb [noun] [adverb] .

where the verb agrees in number with the determiner and is chosen by the kind of the first noun, however many other
nouns of either number stand between. The words so far determine the state (the automaton is unifilar), so the
probability of every word is known, and the entropy rate is the stationary mean of the states' entropies, a finite sum
(Shannon 1948, section 7).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

TOPICS, KINDS, NOUNS, VERBS, ADJECTIVES, ADVERBS = 8, 8, 40, 30, 32, 16
NUMBERS = ("sg", "pl")
NEW_PARAGRAPH, ADJECTIVE, OF, OBJECT, ADVERB = 0.15, 0.4, 0.3, 0.6, 0.3
"""Probabilities of the optional parts, each time the grammar offers them."""
SIZES = {"train": (4096, 128, 1), "test": (512, 128, 2)}
"""Split -> sequences, length, seed."""


@functools.cache
def words() -> list[str]:
    """The vocabulary: token id -> word."""
    return [
        *(f"topic{k}" for k in range(TOPICS)),
        *(f"{word}-{number}" for number in NUMBERS for word in ("this", "one")),
        *(f"adjective{k}" for k in range(ADJECTIVES)),
        *(f"noun{k}-{number}" for number in NUMBERS for k in range(NOUNS)),
        *(f"verb{k}-{number}" for number in NUMBERS for k in range(VERBS)),
        *(f"adverb{k}" for k in range(ADVERBS)),
        "of",
        ".",
    ]


class _Automaton:
    """States by name, filled row by row: `probability` and `successor` are (states, words)."""

    def __init__(self) -> None:
        self.ids = {word: token for token, word in enumerate(words())}
        self.states: dict[tuple, int] = {}
        self.rows: list[tuple[int, int, float, int]] = []

    def state(self, *name: object) -> int:
        return self.states.setdefault(name, len(self.states))

    def add(self, source: int, probability: float, word: str, target: int) -> None:
        self.rows.append((source, self.ids[word], probability, target))

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        probability = np.zeros((len(self.states), len(self.ids)))
        successor = np.zeros(probability.shape, dtype=np.int32)
        for source, token, p, target in self.rows:
            probability[source, token] = p
            successor[source, token] = target
        return probability, successor


@functools.cache
def _language() -> tuple[np.ndarray, np.ndarray]:
    """(probability, successor) of every (state, word); state 0 starts a text."""
    rng = np.random.default_rng(20)
    nouns = rng.dirichlet(np.full(NOUNS, 0.3), size=TOPICS)
    adjectives = rng.dirichlet(np.full(ADJECTIVES, 0.3), size=TOPICS)
    verbs = rng.dirichlet(np.full(VERBS, 0.2), size=KINDS)
    objects = rng.dirichlet(np.full(NOUNS, 0.2), size=KINDS)
    noun_kind, verb_kind = rng.integers(KINDS, size=NOUNS), rng.integers(KINDS, size=VERBS)

    a = _Automaton()
    start = a.state("text")
    for t in range(TOPICS):
        sentence, subject, after = a.state("sentence", t), a.state("subject", t), a.state("object", t)
        last = a.state("adverb", t)
        a.add(start, 1 / TOPICS, f"topic{t}", subject)
        for k in range(TOPICS):
            a.add(sentence, NEW_PARAGRAPH / TOPICS, f"topic{k}", a.state("subject", k))
        for n in NUMBERS:
            noun = a.state("noun", t, n)
            for word in ("this", "one"):
                a.add(subject, 1 / 4, f"{word}-{n}", noun)
                a.add(sentence, (1 - NEW_PARAGRAPH) / 4, f"{word}-{n}", noun)
            for k in range(ADJECTIVES):
                a.add(noun, ADJECTIVE * adjectives[t, k], f"adjective{k}", noun)
            for k in range(NOUNS):
                a.add(noun, (1 - ADJECTIVE) * nouns[t, k], f"noun{k}-{n}", a.state("verb", t, n, noun_kind[k]))
            for kind in range(KINDS):
                verb, other = a.state("verb", t, n, kind), a.state("of", t, n, kind)
                a.add(verb, OF, "of", other)
                for k in range(VERBS):
                    a.add(verb, (1 - OF) * verbs[kind, k], f"verb{k}-{n}", a.state("rest", t, verb_kind[k]))
                for m in NUMBERS:
                    for k in range(NOUNS):
                        a.add(other, nouns[t, k] / 2, f"noun{k}-{m}", verb)
        for kind in range(KINDS):
            rest = a.state("rest", t, kind)
            for m in NUMBERS:
                for k in range(NOUNS):
                    a.add(rest, OBJECT * objects[kind, k] / 2, f"noun{k}-{m}", after)
            _end(a, rest, 1 - OBJECT, last, sentence)
        _end(a, after, 1.0, last, sentence)
        a.add(last, 1.0, ".", sentence)
    return a.tables()


def _end(a: _Automaton, source: int, weight: float, last: int, sentence: int) -> None:
    """An adverb, or the end of the sentence."""
    for k in range(ADVERBS):
        a.add(source, weight * ADVERB / ADVERBS, f"adverb{k}", last)
    a.add(source, weight * (1 - ADVERB), ".", sentence)


def generate(n_sequences: int, length: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """Texts of the language from their beginning: tokens (n_sequences, length) int64, and a name for each text."""
    rng = np.random.default_rng(seed)
    probability, successor = _language()
    states, size = probability.shape
    cumulative = probability.cumsum(axis=1)
    cumulative /= cumulative[:, -1:]
    # Row s shifted to [s, s + 1]: one binary search then draws a word for every text at once.
    ladder = (cumulative + np.arange(states)[:, None]).ravel()
    state = np.zeros(n_sequences, dtype=np.int64)
    tokens = np.empty((n_sequences, length), dtype=np.int64)
    for place in range(length):
        draw = np.minimum(rng.random(n_sequences), 1 - 1e-12)  # s + draw must not round up to s + 1
        tokens[:, place] = np.searchsorted(ladder, state + draw, side="right") - state * size
        state = successor[state, tokens[:, place]]
    return tokens, [f"{seed}:{row}" for row in range(n_sequences)]


def log_probabilities(tokens: np.ndarray) -> np.ndarray:
    """Exact log-probability, in nats, of every token (N, length) given those before it; -inf where ungrammatical."""
    probability, successor = _language()
    state = np.zeros(len(tokens), dtype=np.int64)
    result = np.empty(tokens.shape)
    with np.errstate(divide="ignore"):
        for place in range(tokens.shape[1]):
            result[:, place] = np.log(probability[state, tokens[:, place]])
            state = successor[state, tokens[:, place]]
    return result


@functools.cache
def entropy_rate() -> float:
    """Nats per token of a long text: sum over states of their stationary probability times their entropy."""
    probability, successor = _language()
    states = len(probability)
    transition = np.zeros((states, states))
    np.add.at(transition, (np.arange(states)[:, None], successor), probability)
    # pi T = pi with one equation, which follows from the others, replaced by sum(pi) = 1.
    system = transition.T - np.eye(states)
    system[-1] = 1.0
    stationary = np.linalg.solve(system, np.eye(states)[-1])
    safe = np.where(probability > 0, probability, 1.0)
    return float(-(stationary @ (probability * np.log(safe)).sum(axis=1)))


def table(split: str) -> pa.Table:
    """The catalog's data set: `input_ids`, and `floor`, the least mean loss that any model can expect to have on the
    tokens after the first: the exact mean negative log-probability of those tokens, in nats."""
    import pyarrow as pa

    tokens, _ = generate(*SIZES[split])
    floor = -log_probabilities(tokens)[:, 1:].mean(axis=1)
    return pa.table({"input_ids": list(tokens), "floor": floor})
