"""The predict track and its methods: identities of the cards, and scikit-learn where it has the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.isotonic import IsotonicRegression

from harness.errors import BadInput
from harness.metrics.predict import interval_score, interval_scores, intervals, pinball
from harness.metrics.subject import Subject
from harness.parts.quantiles import conformal_widths, monotonise
from harness.tracks import predict as track
from methods.prediction.linear_stack import linear_stack
from methods.prediction.quantile_agg import Aggregator, crossings, quantile_agg
from methods.prediction.reg_meta import distinct, reg_meta

LEVELS = (0.1, 0.25, 0.5, 0.75, 0.9)
RNG = np.random.default_rng(5)
Q = RNG.normal(size=(200, 5))
Y = RNG.normal(size=200)


def problem(seed: int = 0, **fields):
    return track.build({**track.sample(), **fields}, seed=seed)


@pytest.mark.parametrize("how", ["sort", "isotonic", "sweep"])
def test_quantiles_are_put_in_order_once_and_for_all(how):
    ordered = monotonise(Q, how)
    assert (np.diff(ordered, axis=1) >= -1e-12).all()
    assert np.allclose(monotonise(ordered, how), ordered)
    rising = np.sort(Q, axis=1)
    assert np.allclose(monotonise(rising, how), rising)


def test_isotonic_is_scikit_learns_and_keeps_the_mean():
    ours = monotonise(Q, "isotonic")
    theirs = np.stack([IsotonicRegression().fit_transform(np.arange(5), row) for row in Q])
    assert np.abs(ours - theirs).max() < 1e-10
    assert np.allclose(ours.mean(1), Q.mean(1))


@pytest.mark.parametrize("how", ["sort", "isotonic"])
def test_ordering_can_only_improve_the_interval_score_and_the_pinball_loss(how):
    ordered = monotonise(Q, how)
    assert interval_scores(ordered, Y, LEVELS).mean() <= interval_scores(Q, Y, LEVELS).mean()
    assert (pinball(np.sort(Q, axis=1), Y, LEVELS) <= pinball(Q, Y, LEVELS) + 1e-12).all()


def test_the_interval_score_is_twice_the_pinball_loss():
    """Bracher et al. 2021, section 2.2: both are the same up to a factor, level by level."""
    ordered = np.sort(Q, axis=1)
    assert np.allclose(interval_scores(ordered, Y, LEVELS), 2 * pinball(ordered, Y, LEVELS))
    assert intervals(LEVELS) == [(0, 4, 0.2), (1, 3, 0.5)]


def test_the_interval_score_tells_what_the_outermost_interval_holds():
    ordered, ids = np.sort(Q, axis=1), [f"row:{at}" for at in range(200)]
    extra = {"predicted": ordered, "target": Y, "levels": LEVELS, "ids": ids, "signature": "made-up"}
    found = interval_score(Subject(None, "predict", extra=extra))
    inside = sum(low <= y <= high for (low, *_, high), y in zip(ordered, Y, strict=True)) / 200
    assert found.extra == {"inside": pytest.approx(inside), "promised": pytest.approx(0.8)}
    assert found.signature == "interval-score|made-up|levels:0.1,0.25,0.5,0.75,0.9|v:1"


def test_conformal_intervals_cover_what_they_promise():
    covered = []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        y, new = rng.normal(size=59), rng.normal(size=100)
        q = np.tile([-0.2, 0.0, 0.2], (59, 1))
        widths = conformal_widths(q, y, (0.1, 0.5, 0.9))
        low, _, high = q[0] + widths
        covered.append(np.mean((new >= low) & (new <= high)))
        assert widths[1] == 0
    assert np.mean(covered) + 2 * np.std(covered) / np.sqrt(300) >= 0.8
    assert np.mean(covered) < 0.84


@pytest.mark.parametrize("granularity", ["coarse", "medium"])
@pytest.mark.parametrize("local", [False, True])
def test_weights_start_as_the_uniform_average_and_stay_convex(granularity, local):
    base, features = torch.randn(20, 4, 5), torch.randn(20, 3)
    model = Aggregator(4, 5, 3, granularity, local, dropout=0.0)
    assert torch.allclose(model(features, base), base.mean(1), atol=1e-6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    weights = model.weights(features)
    assert torch.allclose(weights.sum(1), torch.ones_like(weights.sum(1)))
    q = model(features, base)
    assert (q <= base.max(1).values + 1e-6).all()
    assert (q >= base.min(1).values - 1e-6).all()


def test_fine_weights_reach_every_level_of_every_model():
    base = torch.randn(7, 3, 2)
    model = Aggregator(3, 2, 1, "fine", False, dropout=0.0)
    with torch.no_grad():
        model.free.view(6, 2)[4, 1] = 100.0  # all weight of the second level out on model 2, level 0 in
    assert torch.allclose(model(torch.zeros(7, 1), base)[:, 1], base[:, 2, 0], atol=1e-5)


def test_the_crossing_penalty_is_the_mean_over_pairs():
    q, gaps = torch.tensor([[0.0, 1.0, 0.5]]), torch.zeros(3, 3)
    assert float(crossings(q, gaps)) == pytest.approx(0.5 / 3)
    assert float(crossings(q, gaps + 0.6)) == pytest.approx((0.0 + 0.1 + 1.1) / 3)
    assert float(crossings(q, None)) == 0


def test_training_the_weights_beats_the_average_on_its_own_rows():
    one = problem(train=120, levels=list(LEVELS))
    solution = quantile_agg(one, granularity="coarse", local=False, lr=1e-2, steps=400)
    found = track.predicted(solution, one.train, one.levels)
    assert (
        pinball(found, one.train.target, LEVELS).mean()
        < pinball(one.train.base.mean(1), one.train.target, LEVELS).mean()
    )
    weights = dict(zip(one.names, solution.stored["free"].tolist(), strict=True))
    assert weights["noise"] < weights["linear"]


def test_redundant_bases_are_dropped_and_the_best_kept():
    y = RNG.normal(size=100)
    good, other = y + 0.1 * RNG.normal(size=100), RNG.normal(size=100)
    z = np.stack([other, good, good + 1e-9, good * 2], axis=1)
    assert distinct(z, y, 0.95, 1e-3) == [1, 0]
    assert distinct(z[:, [1]], y, 0.95, 1e-3) == [0]
    constant = np.column_stack([z, np.ones(100)])
    assert 4 not in distinct(constant, y, 0.95, 1e-3)


def test_a_duplicated_base_changes_nothing_and_the_matrix_is_better_conditioned():
    one = problem(bases="mean", train=100)
    z, y = one.train.base[:, :, 0], one.train.target
    kept = distinct(z, y, 0.95, 1e-3 * y.var())
    assert np.linalg.cond(z[:, kept]) <= np.linalg.cond(z)
    twice = np.concatenate([one.train.base, one.train.base[:, kept[:1]]], axis=1)
    assert distinct(twice[:, :, 0], y, 0.95, 1e-3 * y.var()) == kept


def test_the_blend_is_finite_for_a_single_base():
    one = problem(bases="mean", train=60)
    rows = {name: getattr(one, name) for name in ("train", "dev")}
    only = {name: type(part)(part.features, part.base[:, :1], part.target, part.ids) for name, part in rows.items()}
    for name, part in only.items():
        setattr(one, name, part)
    assert np.isfinite(reg_meta(one)(one.dev.features, one.dev.base)).all()


def test_the_stack_without_a_penalty_is_least_squares():
    from sklearn.linear_model import LinearRegression

    one = problem(bases="mean", train=100)
    z = one.train.base[:, :3, 0]
    one.train = type(one.train)(one.train.features, one.train.base[:, :3], one.train.target, one.train.ids)
    ours = linear_stack(one, ridge=0.0)(one.dev.features, one.dev.base[:, :3])[:, 0]
    theirs = LinearRegression().fit(z, one.train.target).predict(one.dev.base[:, :3, 0])
    assert np.allclose(ours, theirs)


def test_no_row_is_predicted_by_a_base_that_saw_it():
    """A base that remembers its rows would be perfect on them."""
    from harness.parts.stacking import out_of_fold

    x, y = np.arange(10.0)[:, None], np.arange(10.0)

    def memory(x, y, new):
        known = dict(zip(x[:, 0], y, strict=True))
        return np.array([[known.get(value, -1.0)] for value in new[:, 0]])

    found = out_of_fold([memory], x, y, np.arange(10) % 3)
    assert (found == -1).all()


def test_test_rows_are_the_same_for_every_seed_and_never_train():
    one, other = problem(0), problem(1)
    assert one.held_out().ids == other.held_out().ids
    assert one.train.ids != other.train.ids
    for each in (one, other):
        assert not set(each.held_out().ids) & {*each.train.ids, *each.dev.ids}
        assert not set(each.train.ids) & set(each.dev.ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": None}, "problem: dataset=None is not accepted"),
        ({"dataset": "digits"}, "problem: data set digits has no usual target; give `target`"),
        ({"bases": "median"}, "problem: bases='median' is not accepted; did you mean mean?"),
        ({"levels": [0.5, 0.1]}, "problem: levels=[0.5, 0.1] is not accepted; it takes rising numbers between 0 and 1"),
        ({"levels": []}, "problem: levels=[] is not accepted"),
        ({"folds": 1}, "problem: folds=1 is not accepted; it takes a number of at least 2"),
        ({"model": "mlp"}, "problem: unknown field model"),
    ],
)
def test_a_wrong_problem_is_refused_in_one_line(change, message):
    with pytest.raises(BadInput) as caught:
        track.describe({**track.sample(), **change})
    assert str(caught.value).startswith(message)


def test_a_table_that_is_too_small_or_has_no_such_column_is_refused():
    with pytest.raises(BadInput, match=r"data set diabetes has 442 rows; train, dev and test ask for 400 \+ 20 \+ 80"):
        problem(train=400, test=80)
    with pytest.raises(BadInput, match=r"data set diabetes has no column 'bmj'; did you mean bmi"):
        problem(target="bmj")


def test_methods_refuse_the_other_kind_of_prediction():
    with pytest.raises(BadInput, match="quantile_agg predicts quantiles"):
        quantile_agg(problem(bases="mean"))
    with pytest.raises(BadInput, match="reg_meta predicts the mean"):
        reg_meta(problem())
