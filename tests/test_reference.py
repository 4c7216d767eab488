"""Recipes of the reference models: the generated language, the n-gram model, tokens, images, and the weights made."""

import functools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import suites.reference
from harness import data, data_synthetic
from harness.errors import BadInput
from harness.train import reference
from harness.train.loop import Phase, run_phases
from suites.reference import images, llama, text
from suites.reference.ngram import KneserNey

WEIGHTS = Path(suites.reference.__path__[0])


# The generated language


def test_entropy_rate_is_what_long_texts_show():
    tokens, _ = data_synthetic.generate(200, 3000, seed=5)
    losses = -data_synthetic.log_probabilities(tokens)[:, 200:].mean(axis=1)
    error = losses.std(ddof=1) / math.sqrt(len(losses))
    assert abs(losses.mean() - data_synthetic.entropy_rate()) < 4 * error
    assert error < 0.003


def test_words_follow_their_probabilities():
    probability, successor = data_synthetic._language()
    assert np.allclose(probability.sum(axis=1), 1)
    tokens, names = data_synthetic.generate(20_000, 4, seed=6)
    assert len(set(names)) == 20_000
    state = successor[0, tokens[:, 0]]
    for place in (1, 2, 3):
        expected = probability[state].sum(axis=0)
        seen = np.bincount(tokens[:, place], minlength=probability.shape[1])
        assert (seen[expected == 0] == 0).all()
        deviation = (seen - expected)[expected > 5] / np.sqrt(expected[expected > 5])
        assert np.abs(deviation).max() < 5
        state = successor[state, tokens[:, place]]


def test_verbs_agree_with_the_determiner_across_other_nouns():
    words = data_synthetic.words()
    rows = data_synthetic.generate(50, 300, seed=7)[0]
    attractors = 0
    for row in rows:
        number, distance = None, 0
        for token in row:
            word = words[token]
            if word.startswith(("this", "one")):
                number, distance = word[-2:], 0
            elif word.startswith("verb"):
                assert word.endswith(number)
                attractors += distance > 2
            distance += 1
    assert attractors > 100
    other = {w: i for i, w in enumerate(words)}
    sentence = "topic0 this-sg noun{k}-sg verb{v}-pl"
    broken = [[other[w] for w in sentence.format(k=k, v=v).split()] for k in range(40) for v in range(30)]
    assert np.isneginf(data_synthetic.log_probabilities(np.array(broken))[:, 3]).all()


def test_generated_data_set_carries_its_floor():
    dataset = data.load("synthetic-lm", split="test")
    tokens = np.array(dataset.column("input_ids"))
    assert tokens.shape == (512, 128)
    expected = -data_synthetic.log_probabilities(tokens)[:, 1:].mean(axis=1)
    np.testing.assert_allclose(dataset.column("floor"), expected, rtol=1e-12)
    assert np.mean(dataset.column("floor")) == pytest.approx(data_synthetic.entropy_rate(), abs=0.01)
    train = {tuple(row) for row in data.load("synthetic-lm", split="train").column("input_ids")}
    assert not train & {tuple(row) for row in tokens.tolist()}


# The n-gram model


def plain_kneser_ney(tokens: list[int], order: int, vocabulary: int):
    """The definition, written down with dictionaries."""
    counts = [Counter()] * (order + 1)
    counts[order] = Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))
    for n in range(order - 1, 0, -1):
        counts[n] = Counter(gram[1:] for gram in counts[n + 1])

    @functools.cache
    def discount(n: int, count: int) -> float:
        n1, n2, n3, n4 = (sum(c == k for c in counts[n].values()) for k in (1, 2, 3, 4))
        y = n1 / (n1 + 2 * n2)
        return {1: 1 - 2 * y * n2 / n1, 2: 2 - 3 * y * n3 / n2}.get(count, 3 - 4 * y * n4 / n3)

    def probability(history: tuple[int, ...], word: int) -> float:
        n = len(history) + 1
        lower = probability(history[1:], word) if history else 1 / vocabulary
        followers = {gram[-1]: c for gram, c in counts[n].items() if gram[:-1] == history}
        if not followers:
            return lower
        total, own = sum(followers.values()), followers.get(word, 0)
        gamma = sum(discount(n, c) for c in followers.values()) / total
        return (own - discount(n, own) if own else 0) / total + gamma * lower

    return probability


def markov_tokens(count: int, size: int = 12, alpha: float = 0.4) -> np.ndarray:
    rng = np.random.default_rng(8)
    rows = rng.dirichlet(np.full(size, alpha), size=size).cumsum(axis=1)
    tokens = [0]
    for draw in rng.random(count - 1):
        tokens.append(min(int(np.searchsorted(rows[tokens[-1]], draw)), size - 1))
    return np.array(tokens, dtype=np.uint16)


def test_kneser_ney_is_its_definition():
    # Rare words, so that at every order some n-grams are seen once, twice, three and four times.
    tokens = markov_tokens(600, size=200, alpha=0.03)
    model, plain = KneserNey(tokens, 200, order=3), plain_kneser_ney(tokens.tolist(), 3, 200)
    rng = np.random.default_rng(10)
    seen = np.lib.stride_tricks.sliding_window_view(tokens, 3)[::3].astype(int)
    grams = np.concatenate([seen, rng.permuted(seen, axis=1), rng.integers(200, size=(100, 3))])
    expected = [plain((a, b), c) for a, b, c in grams.tolist()]
    np.testing.assert_allclose(model.probabilities(grams), expected, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_kneser_ney_sums_to_one_after_any_history(order):
    model = KneserNey(markov_tokens(5000), 20, order=order)  # words 12 to 19 never occur
    histories = np.random.default_rng(9).integers(20, size=(50, order - 1))
    grams = np.concatenate([np.repeat(histories, 20, axis=0), np.tile(np.arange(20), 50)[:, None]], axis=1)
    p = model.probabilities(grams).reshape(50, 20)
    assert (p > 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)


def test_kneser_ney_scores_every_token_once_and_learns():
    tokens = markov_tokens(30_000)
    model = KneserNey(tokens[:20_000], 12, order=5)
    losses = -model.log_probabilities(tokens[20_000:])
    assert losses.shape == (10_000 - 4,)
    single = model.probabilities(tokens[20_000:20_005].astype(int)[None])
    assert losses[0] == pytest.approx(-math.log(single[0]))
    unigram = -KneserNey(tokens[:20_000], 12, order=1).log_probabilities(tokens[20_000:]).mean()
    assert losses.mean() < unigram - 0.2
    with pytest.raises(ValueError, match="63 bits"):
        KneserNey(tokens, 2**16, order=5)


# Text


@pytest.fixture(scope="module")
def tokenizer():
    return text.train_tokenizer(["the cat sat on the mat", "a dog and the cat"] * 20, vocabulary=300, context=64)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_tokenizer_round_trips_any_text(tokenizer, written):
    ids = tokenizer(written, add_special_tokens=False)["input_ids"]
    special = {text.BOS, text.EOS}
    if not any(mark in written for mark in special):
        assert tokenizer.decode(ids) == written
        assert not set(ids) & {tokenizer.bos_token_id, tokenizer.eos_token_id}


def test_tokenizer_survives_being_saved(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    text.save_tokenizer(tokenizer, tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    written = "the cat \N{SNOWMAN} sat\n\n  <unk> @-@ naïve"
    assert again(written)["input_ids"] == tokenizer(written)["input_ids"]
    assert again(written)["input_ids"][0] == again.bos_token_id
    assert again.decode(again(written)["input_ids"], skip_special_tokens=True) == written


def test_stream_puts_each_document_between_marks_and_is_kept(tokenizer, tmp_path):
    documents = ["the cat", "a dog and"]
    tokens = text.stream(tokenizer, documents, tmp_path / "t.npy")
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    assert tokens.dtype == np.uint16
    assert [(tokens == mark).sum() for mark in (bos, eos)] == [2, 2]
    assert tokenizer.decode(tokens) == "<s>the cat</s><s>a dog and</s>"
    np.testing.assert_array_equal(text.stream(tokenizer, [], tmp_path / "t.npy"), tokens)


def test_articles_are_cut_at_titles():
    rows = ["", " = One = \n", "", " text \n", " = = Part = = \n", " more \n", " = Two = \n", " end \n"]
    assert text.articles(rows) == [" = One = \n text \n = = Part = = \n more \n", " = Two = \n end \n"]


def test_windows_read_every_place_once_an_epoch():
    tokens = np.arange(1000, dtype=np.uint16)
    batches = text.windows(tokens, batch=3, length=10, seed=4)
    epoch = [batches(i) for i in range(98 // 3)]
    starts = torch.cat([batch[:, 0] for batch in epoch])
    assert epoch[0].shape == (3, 11)
    assert torch.equal(epoch[0], epoch[0][:, :1] + torch.arange(11))
    assert len(set(starts.tolist())) == len(starts)
    assert len({start % 10 for start in starts.tolist()}) == 1
    assert torch.equal(batches(5), epoch[5])
    assert not torch.equal(batches(98 // 3), epoch[0])


# Images


def test_epochs_read_every_image_once():
    batches = images.epochs(torch.arange(30.0), torch.arange(30), batch=10, seed=1)
    first, second = (torch.cat([batches(e * 3 + i)[1] for i in range(3)]) for e in (0, 1))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(30))
    assert not torch.equal(first, second)


def test_shifted_images_are_crops_of_the_padded_ones():
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand(200, 2, 6, 6, generator=generator)
    moved = images.shifted(pictures, 1, generator, mirror=True)
    padded = torch.nn.functional.pad(pictures, (1, 1, 1, 1), mode="replicate")
    kinds = set()
    for picture, result in zip(padded, moved, strict=True):
        crops = {
            (row, column, flip): crop.flip(-1) if flip else crop
            for row in range(3)
            for column in range(3)
            for flip in (False, True)
            for crop in [picture[:, row : row + 6, column : column + 6]]
        }
        kinds |= {kind for kind, crop in crops.items() if torch.equal(crop, result)}
        assert any(torch.equal(crop, result) for crop in crops.values())
    assert len(kinds) == 18


# The language models


def test_a_stopped_language_model_continues_bit_for_bit(tmp_path):
    recipe = {"vocabulary": 202, "hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 2}
    recipe |= {"key_value_heads": 1, "context": 32, "muon_lr": 4e-3, "adamw_lr": 3e-3, "weight_decay": 0.1}

    def trained(checkpoint: Path | None = None, stop: int | None = None) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        model = llama.build(recipe, generator)
        batches = lambda i: torch.from_numpy(data_synthetic.generate(4, 32, seed=i)[0])  # noqa: E731
        phase = Phase(6, batches, llama.next_token_loss, llama.optimizers(recipe), accumulate=2)
        options = {"autocast": torch.bfloat16, "checkpoint": checkpoint, "stop_after": stop}
        run_phases(model, [phase], generator=generator, **options)
        return model.state_dict()

    whole = trained()
    stopped = trained(tmp_path / "c.pt", stop=3)
    continued = trained(tmp_path / "c.pt")
    assert not all(torch.equal(whole[name], stopped[name]) for name in whole)
    assert all(torch.equal(whole[name], continued[name]) for name in whole)


def test_stream_losses_score_every_token_after_the_first():
    recipe = {"vocabulary": 50, "hidden_size": 32, "intermediate_size": 64, "layers": 1, "heads": 2}
    model = llama.build({**recipe, "key_value_heads": 1, "context": 16}, torch.Generator().manual_seed(2)).eval()
    tokens = np.random.default_rng(3).integers(50, size=41).astype(np.uint16)
    losses = llama.stream_losses(model, tokens, context=16)
    assert losses.shape == (40,)
    logits = model(input_ids=torch.from_numpy(tokens[16:20].astype(np.int64))[None]).logits[0]
    assert losses[19] == pytest.approx(-logits.log_softmax(-1)[3, tokens[20]].item(), abs=1e-4)


# Recipes and the weights they made


RECIPE = """
import torch
from harness.train.loop import Phase, run_phases
from harness.train.reference import Report

def train(run):
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Linear(3, 1, bias=False)
    torch.nn.init.normal_(model.weight, generator=generator)
    loss = lambda model, batch, generator: (model(torch.randn(8, 3, generator=generator)) - 1).square().mean()
    phase = Phase(6, lambda i: i, loss, lambda named: torch.optim.SGD(named.values(), lr=0.1))
    stop = 4 if (run.cache / "stop").exists() else None
    options = {"checkpoint": run.checkpoint, "stop_after": stop, "tag": run.tag({}, [])}
    fitted = run_phases(model, [phase], generator=generator, **options)
    if stop:
        raise KeyboardInterrupt
    torch.save(model.state_dict(), run.folder / "model.pt")
    return Report("Toy", "A line.", [("none", "0")], {"lr": 0.1}, [("loss", "1")], fitted, "mit", ["A note."])
"""


@pytest.fixture
def toy_recipe(tmp_path, monkeypatch):
    package = tmp_path / f"recipes_of_{tmp_path.name}"  # Python keeps what it imported, by name
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "helper.py").write_text("")
    (package / "toy_line.py").write_text(RECIPE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(reference, "PACKAGE", package.name)
    return package


def test_recipes_are_found_and_unknown_ones_refused(toy_recipe, tmp_path):
    assert reference.names() == ["toy-line"]
    with pytest.raises(BadInput, match="unknown reference model 'toy-lime'; did you mean toy-line"):
        reference.train_reference("toy-lime", cache=tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_stopped_recipe_continues_and_leaves_a_card(toy_recipe, tmp_path):
    folder = reference.train_reference("toy-line", cache=tmp_path / "a", threads=1)
    assert folder == toy_recipe / "toy-line"
    card = (folder / "README.md").read_text()
    for part in ("license: mit", "# Toy", "train-reference toy-line", "| loss | 1 |", "| updates | 6 |", "- A note."):
        assert part in card

    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "stop").touch()
    with pytest.raises(KeyboardInterrupt):
        reference.train_reference("toy-line", out=tmp_path / "out", cache=tmp_path / "b", threads=1)
    assert not (tmp_path / "out").exists()
    (tmp_path / "b" / "stop").unlink()
    reference.train_reference("toy-line", out=tmp_path / "out", cache=tmp_path / "b", threads=1)
    assert (tmp_path / "out" / "model.pt").read_bytes() == (folder / "model.pt").read_bytes()


def test_every_recipe_of_the_project_has_its_weights_and_card():
    for name in reference.names():
        for file in ("model.safetensors", "config.json", "README.md"):
            assert (WEIGHTS / name / file).is_file(), f"{name}/{file}: run harness train-reference {name}"


def test_weights_are_small_enough_to_be_committed():
    limits = {"tiny-llama": 12e6, "synthetic-lm": 5e5, "resnet20": 1.2e6, "digits-vit": 6e5}
    assert set(limits) == set(reference.names())
    for name, limit in limits.items():
        assert (WEIGHTS / name / "model.safetensors").stat().st_size < limit


def test_digits_vit_reads_unseen_digits():
    from harness.models import open_model

    model, test = open_model("digits-vit"), data.load("digits", split="test")
    x = model.preprocess(test.column("image"))
    assert images.accuracy(model.load(), x, torch.tensor(test.column("label"))) >= 0.965


def test_synthetic_lm_comes_near_the_floor_and_never_below():
    from harness.models import open_model

    test = data.load("synthetic-lm", split="test", limit=64)
    losses = llama.token_losses(open_model("synthetic-lm").load(), np.array(test.column("input_ids")), 64).mean(axis=1)
    above = losses - np.array(test.column("floor"))
    assert 0 < above.mean() < 0.1


def test_tiny_llama_reads_and_writes_its_tokens():
    from harness.models import open_model

    model = open_model("tiny-llama")
    tokenizer = model.tokenizer
    written = " The ship sailed @-@ slowly , <unk> into the harbour .\n\N{SNOWMAN}"
    assert tokenizer.decode(tokenizer(written, add_special_tokens=False)["input_ids"]) == written
    assert tokenizer("a")["input_ids"][0] == model.config.bos_token_id == tokenizer.bos_token_id
    assert tokenizer.eos_token_id == model.config.eos_token_id
    assert model.dtype is torch.bfloat16
    likely, unlikely = (
        np.array([tokenizer(f"He did not know what to {word} to her.")["input_ids"]]) for word in ("say", "blue")
    )
    assert likely.shape == unlikely.shape
    weights = model.load()
    assert llama.token_losses(weights, likely).sum() < llama.token_losses(weights, unlikely).sum() - 1


@pytest.mark.slow
def test_tiny_llama_has_the_perplexity_on_its_card(mirror):
    from harness.models import open_model

    model = open_model("tiny-llama")
    documents = text.articles(data.load("wikitext2", split="test").column("text"))
    losses = llama.stream_losses(model.load(), text.stream(model.tokenizer, documents), context=512)[3:]
    row = next(
        row for row in (WEIGHTS / "tiny-llama" / "README.md").read_text().splitlines() if "WikiText-2 test" in row
    )
    assert f"({len(losses):,} tokens)" in row
    assert math.exp(losses.mean()) == pytest.approx(float(row.split("**")[1]), rel=1e-3)
