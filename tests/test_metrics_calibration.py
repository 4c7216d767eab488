"""Brier score and calibration error, against scikit-learn and sums made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss
from torch import nn

from harness.errors import BadInput
from harness.metrics import calibration
from harness.metrics.subject import Subject
from harness.tasks import make_task
from harness.tracks import predict


def task(**fields):
    spec = {"dataset": "digits", "train": 60, "dev": 10, "test": 50, **fields}
    return make_task(spec, torch.Generator().manual_seed(0))


def subject(one, **fields) -> Subject:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        nn.init.normal_(model[1].weight, std=0.5)
    return Subject(model, "vision", tasks={one.name: one}, **fields)


def probabilities(given: Subject, one) -> np.ndarray:
    with torch.no_grad():
        return given.model(one.test.inputs).double().softmax(-1).numpy()


def test_the_brier_score_is_scikit_learns():
    one = task()
    given = subject(one)
    theirs = brier_score_loss(
        one.test.labels.numpy(), probabilities(given, one), labels=list(range(10)), scale_by_half=False
    )
    scores = calibration.brier_score(given)
    assert scores.value == pytest.approx(theirs, rel=1e-9)
    assert not scores.higher_is_better


def test_of_two_classes_it_is_twice_the_usual_one():
    p = np.array([0.1, 0.4, 0.8])
    both = np.stack([1 - p, p], 1)
    labels = np.array([0, 1, 1])
    by_hand = (both**2).sum(1) - 2 * both[np.arange(3), labels] + 1
    assert by_hand.mean() == pytest.approx(2 * brier_score_loss(labels, p))


def test_the_mean_of_signed_gaps_is_the_calibration_error_made_by_hand():
    one = task()
    given = subject(one)
    p = probabilities(given, one)
    sure, right = p.max(1), p.argmax(1) == one.test.labels.numpy()
    expected = 0.0
    order = np.argsort(sure)
    for rows in (order[:10], order[10:20], order[20:30], order[30:40], order[40:]):
        expected += len(rows) / 50 * abs(right[rows].mean() - sure[rows].mean())
    scores = calibration.calibration_error(given, bins=5)
    assert scores.value == pytest.approx(expected, rel=1e-9)
    assert "|bins:5|" in scores.signature
    assert expected > 0.05


def test_one_bin_is_confidence_less_accuracy():
    sure, right = np.array([[0.9], [0.8], [0.7]]), np.array([[True], [False], [False]])
    assert calibration.gaps(sure, right, 1).mean() == pytest.approx(0.8 - 1 / 3)
    assert calibration.gaps(sure, right, 1).tolist() == pytest.approx([-0.1, 0.8, 0.7])


def test_what_is_calibrated_has_little_error_and_what_is_too_sure_has_its_excess():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, size=(20_000, 1))
    right = rng.random((20_000, 1)) < sure
    assert calibration.gaps(sure, right, 15).mean() < 0.015
    assert calibration.gaps(np.minimum(sure + 0.1, 1.1), right, 15).mean() == pytest.approx(0.1, abs=0.01)


def test_of_a_text_every_token_is_an_answer():
    spec = {"dataset": "synthetic-lm", "tokenizer": "synthetic-lm", "length": 8, "train": 8, "dev": 4, "test": 6}
    one = make_task(spec, torch.Generator().manual_seed(0))
    logits = torch.randn(one.classes, one.classes, generator=torch.Generator().manual_seed(2))
    model = nn.Embedding.from_pretrained(logits)
    given = Subject(model, "causal-lm", tasks={one.name: one})
    scores = calibration.brier_score(given)
    p = logits[one.test.inputs].double().softmax(-1)
    expected = (p - nn.functional.one_hot(one.test.labels, one.classes)).square().sum(-1).mean(1)
    np.testing.assert_allclose(scores.values, expected.numpy())
    assert scores.blocks is not None
    error = calibration.calibration_error(given, bins=4)
    flat = calibration.gaps(
        p.max(-1)[0].reshape(-1, 1).numpy(), (p.argmax(-1) == one.test.labels).reshape(-1, 1).numpy(), 4
    )
    assert error.value == pytest.approx(flat.mean())


def test_quantiles_are_set_against_their_levels():
    rng = np.random.default_rng(1)
    target, levels = rng.normal(size=400), np.array([0.1, 0.5, 0.9])
    predicted = np.tile([-1.0, 0.3, 1.0], (400, 1))
    below = [(target <= q).mean() for q in (-1.0, 0.3, 1.0)]
    expected = np.mean([abs(part - level) for part, level in zip(below, levels, strict=True)])
    assert calibration.quantile_gaps(predicted, target, levels).mean() == pytest.approx(expected)


def test_predictors_of_quantiles_are_measured_and_those_of_the_mean_refused():
    from methods.prediction.average import average

    problem = predict.build(predict.sample(), seed=0)
    given = predict.subject(problem, predict.solve(average, problem, {}))
    scores = calibration.calibration_error(given)
    assert len(scores.ids) == 20
    assert "|levels:0.25,0.5,0.75|" in scores.signature
    problem = predict.build({**predict.sample(), "bases": "mean"}, seed=0)
    given = predict.subject(problem, predict.solve(average, problem, {}))
    with pytest.raises(BadInput, match="is for classes and quantiles"):
        calibration.calibration_error(given)
    with pytest.raises(BadInput, match="metric brier_score is for problems that have a task"):
        calibration.brier_score(given)


def test_more_bins_than_answers_are_refused():
    with pytest.raises(BadInput, match="calibration_error: bins=60 is not accepted for 50 answers"):
        calibration.calibration_error(subject(task()), bins=60)
