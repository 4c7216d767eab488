"""Tasks: what is drawn, what is transformed, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.errors import BadInput
from harness.tasks import describe_task, evaluate, make_task, task_kind
from harness.tasks.task import Split, epochs, per_sample
from harness.tasks.text import BLOCK
from harness.tasks.vision import TRANSFORMS, relabelled


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def digits(seed: int = 0, **fields):
    return make_task({"dataset": "digits", "train": 100, "dev": 30, "test": 20, **fields}, generator(seed))


def test_training_and_development_samples_are_disjoint_and_drawn_from_the_seed():
    one, again, other = digits(), digits(), digits(1)
    assert not set(one.train.ids) & set(one.dev.ids)
    assert one.train.ids == again.train.ids
    assert torch.equal(one.train.inputs, again.train.inputs)
    assert one.train.ids != other.train.ids
    assert one.test.ids == other.test.ids
    assert one.train.inputs.shape == (100, 1, 8, 8)
    assert one.train.inputs.min() >= -1
    assert one.train.inputs.max() <= 1


def test_the_classes_that_are_kept_keep_their_labels():
    task = digits(classes=[3, 7])
    assert set(task.train.labels.tolist()) == {3, 7} == set(task.test.labels.tolist())
    assert task.classes == 10


def test_noise_changes_about_its_part_of_the_training_labels_alone():
    clean, noisy = digits(train=1000), digits(train=1000, noise=0.3)
    assert noisy.train.ids == clean.train.ids
    changed = (noisy.train.labels != clean.train.labels).float().mean()
    assert 0.3 * 0.9 - 0.05 < changed < 0.3 * 0.9 + 0.05
    assert torch.equal(noisy.dev.labels, clean.dev.labels)
    assert torch.equal(relabelled(clean.train.labels, 0.0, range(10), generator()), clean.train.labels)


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_transforms_keep_shape_and_range_and_draw_nothing(name):
    x = torch.rand(3, 2, 8, 8, generator=generator()) * 2 - 1
    once, again = TRANSFORMS[name](x), TRANSFORMS[name](x)
    assert once.shape == x.shape
    assert torch.equal(once, again)
    assert once.abs().max() <= 1
    if name not in ("identity", "blur"):
        assert not torch.equal(once, x)


def test_a_transform_is_part_of_the_signature_and_of_the_name():
    plain, turned = digits(), digits(transform="transpose+invert")
    assert plain.signature != turned.signature
    assert turned.name == "digits+transpose+invert"
    assert torch.allclose(turned.test.inputs, -plain.test.inputs.transpose(2, 3))


def test_every_epoch_reads_each_sample_once_in_its_own_order():
    split = Split(torch.arange(10), torch.arange(10), [str(i) for i in range(10)])
    batches = epochs(split, 5, seed=3)
    first, second = (torch.cat([batches(2 * e).rows, batches(2 * e + 1).rows]) for e in (0, 1))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert first.tolist() != second.tolist()
    assert torch.equal(epochs(split, 5, seed=3)(3).rows, batches(3).rows)
    assert len(epochs(split, 64, seed=0)(0).rows) == 10  # a batch larger than the data is the data


def test_text_windows_predict_the_next_token():
    spec = {"dataset": "synthetic-lm", "tokenizer": "synthetic-lm", "length": 32, "train": 20, "dev": 5, "test": 10}
    task = make_task(spec, generator())
    assert task_kind(spec) == task.kind == "causal-lm"
    assert task.train.inputs.shape == task.train.labels.shape == (20, 32)
    assert torch.equal(task.train.inputs[:, 1:], task.train.labels[:, :-1])
    assert task.train.inputs.max() < task.classes


def test_test_windows_are_spread_over_the_text_and_resampled_with_their_neighbours():
    spec = {"dataset": "synthetic-lm", "tokenizer": "synthetic-lm", "length": 32, "train": 20, "dev": 5, "test": 40}
    few, all_of_them = make_task(spec, generator()), make_task({**spec, "test": 400}, generator())
    (whole,) = {one.signature.rpartition(" of ")[2].partition("|")[0] for one in (few, all_of_them)}
    assert f"windows:40 of {whole}|" in few.signature
    rows = [int(one.rpartition(":")[2]) for one in few.test.ids]
    assert set(np.diff(rows)) <= {int(whole) // 40, int(whole) // 40 + 1}
    assert rows[-1] >= 0.97 * int(whole) - 1
    at = dict(zip(all_of_them.test.ids, all_of_them.test.inputs, strict=True))
    assert all(
        torch.equal(at[one], window) for one, window in zip(few.test.ids, few.test.inputs, strict=True) if one in at
    )
    assert [int(block.rpartition(":")[2]) for block in few.test.blocks] == [row * 32 // BLOCK for row in rows]


def test_the_loss_per_sample_averages_a_texts_tokens():
    logits, labels = torch.randn(4, 3, 7, generator=generator()), torch.randint(7, (4, 3), generator=generator())
    expected = torch.stack(
        [-row.log_softmax(-1)[range(3), label].mean() for row, label in zip(logits, labels, strict=True)]
    )
    assert torch.allclose(per_sample(logits, labels), expected)
    assert per_sample(logits[:, 0], labels[:, 0]).shape == (4,)


def test_evaluating_leaves_the_mode_of_the_model():
    task = digits()
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10), torch.nn.Dropout(0.5)).train()
    scores = evaluate(task, model, task.test)
    assert model.training
    assert scores["loss"].shape == scores["accuracy"].shape == (20,)
    assert set(scores["accuracy"]) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digits", "task: 'digits' is not accepted; it takes a mapping"),
        ({"dataset": "digit"}, "unknown dataset 'digit'; did you mean digits?"),
        ({"dataset": "digits", "trian": 3}, "task: unknown field trian; did you mean train"),
        ({"dataset": "digits", "train": 0}, "task: train=0 is not accepted; it takes a number of at least 1"),
        ({"dataset": "digits", "noise": 2}, "task: noise=2 is not accepted; it takes a part from 0 to 1"),
        ({"dataset": "digits", "transform": "rotate45"}, "task: unknown transform 'rotate45'; did you mean"),
        ({"dataset": "synthetic-lm", "length": "long"}, "task: length='long' is not accepted"),
    ],
)
def test_a_wrong_task_is_refused_in_one_line(spec, message):
    with pytest.raises(BadInput) as caught:
        describe_task(spec)
    assert str(caught.value).startswith(message)


def test_more_samples_than_there_are_is_refused():
    with pytest.raises(BadInput, match=r"data set digits has 1437 samples; train and dev ask for 1400 \+ 200"):
        digits(train=1400, dev=200)
