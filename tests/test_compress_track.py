"""The compress track as the engine uses it: describe, build, solve, evaluate, measure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from harness import BadInput, CompressProblem, LayerProblem, Solution, data
from harness.models.vision import digits_vit
from harness.registry import Entry, get
from harness.tracks import compress as track

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
    "not",
    "he",
]


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random vision transformer for the bundled digits."""
    folder = tmp_path_factory.mktemp("vision")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = digits_vit(dim=16, depth=2, mlp_dim=32)
    (folder / "config.json").write_text(json.dumps(model.config))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    return str(folder)


def save_tokenizer(folder: Path, **special: str) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(["<pad>", "<s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", **special
    ).save_pretrained(folder)


def transformer(folder: Path, name: str, head: str, **config: Any) -> str:
    import transformers

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings = getattr(transformers, f"{name}Config")(
        **sizes, vocab_size=len(WORDS) + 3, max_position_embeddings=40, **config
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        getattr(transformers, f"{name}{head}")(settings).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("language")
    save_tokenizer(folder, bos_token="<s>")
    return transformer(folder, "Llama", "ForCausalLM", num_key_value_heads=2)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    save_tokenizer(folder)
    return transformer(folder, "Bert", "Model")


def document(number: int, length: int) -> str:
    """Words whose order tells where in which document a window is from."""
    return " ".join(WORDS[(number + i * (number + 1)) % len(WORDS)] for i in range(length))


def give(monkeypatch: pytest.MonkeyPatch, table: pa.Table, **source: Any) -> None:
    """Make `table` the data set that every name stands for."""

    def load(name: str, *, split: str | None = None, limit: int | None = None) -> data.Dataset:
        return data.Dataset(data.Source(name, f"test/{name}", "default", split or "train", **source), table, "0" * 64)

    monkeypatch.setattr(data, "load", load)


def spec(model: str, **calibration: Any) -> dict[str, Any]:
    return {"model": model, "calibration": {"dataset": "digits", "split": "train", "samples": 70, **calibration}}


def test_describe_gives_hashes_and_imports_no_torch(vision: str) -> None:
    program = (
        "import json, sys; from harness.tracks import compress as track;"
        f"hashes = track.describe({spec(vision)!r}); assert 'torch' not in sys.modules; print(json.dumps(hashes))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    hashes = json.loads(run.stdout)
    assert hashes == track.describe(spec(vision))
    assert hashes["calibration"] == data.content_hash("digits", "train")
    assert track.describe({"model": vision}) == {"model": hashes["model"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 0}, "calibration: samples=0 is not accepted; it takes an integer of at least 1"),
        ({"samples": True}, "calibration: samples=True is not accepted"),
        ({"length": "long"}, "calibration: length='long' is not accepted"),
        ({"sample": 3}, "calibration: unknown field 'sample'; did you mean samples"),
        ({"dataset": None}, "calibration: dataset=None is not accepted; it takes the name of a dataset"),
        ({"split": 3}, "calibration: split=3 is not accepted; it takes the name of a split"),
        ({"split": "valid"}, "dataset digits has no split 'valid'"),
        ({"dataset": "digit"}, "unknown dataset 'digit'; did you mean digits?"),
    ],
)
def test_bad_calibration_is_refused(vision: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as refusal:
        track.describe(spec(vision, **change))
    assert str(refusal.value).startswith(message)


def test_bad_specifications_are_refused(vision: str) -> None:
    for given, message in (
        ({}, "problem: model=None is not accepted; it takes the name of a model"),
        ({"model": vision, "calibraton": {}}, "problem: unknown field 'calibraton'; did you mean calibration?"),
        (
            {"model": vision, "calibration": "digits"},
            "problem: calibration='digits' is not accepted; it takes the fields",
        ),
        ({"model": "no-such-model"}, ""),
    ):
        with pytest.raises(BadInput) as refusal:
            track.describe(given)
        assert str(refusal.value).startswith(message)


def test_images_are_drawn_by_the_seed(vision: str) -> None:
    first, again, other = (track.build(spec(vision), seed=seed) for seed in (0, 0, 1))
    assert [len(batch["pixel_values"]) for batch in first.calibration] == [64, 6]
    assert torch.equal(first.calibration[0]["pixel_values"], again.calibration[0]["pixel_values"])
    assert not torch.equal(first.calibration[0]["pixel_values"], other.calibration[0]["pixel_values"])
    digits = data.load("digits", split="train")
    pixels = first.handle.preprocess(digits.column("image"))
    for batch in first.calibration:
        for image, label in zip(batch["pixel_values"], batch["labels"], strict=True):
            row = int((pixels == image).flatten(1).all(1).nonzero()[0])
            assert digits.column("label")[row] == label
    assert first.loss is not None
    assert 1.5 < float(first.loss(first.model, first.calibration[0])) < 4


def test_more_images_than_there_are(vision: str) -> None:
    with pytest.raises(BadInput, match=r"calibration: samples=2000, but dataset digits:train has 1437 images"):
        track.build(spec(vision, samples=2000), seed=0)


def test_windows_of_text(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [document(0, 50), document(1, 10), document(2, 30), document(3, 19)]
    give(monkeypatch, pa.table({"text": texts}), text="text")
    problem = track.build(spec(language, samples=40, length=20), seed=0)
    tokens = torch.cat([batch["input_ids"] for batch in problem.calibration])
    assert tokens.shape == (40, 20)
    tokenizer = problem.handle.tokenizer
    found = set()
    for window in tokens:
        assert window[0] == tokenizer.bos_token_id
        words = tokenizer.decode(window[1:])
        where = [number for number, text in enumerate(texts) if words in text]
        assert where
        found.update(where)
    assert found == {0, 2, 3}  # the second document is too short, the last just long enough
    again = track.build(spec(language, samples=40, length=20), seed=0)
    other = track.build(spec(language, samples=40, length=20), seed=1)
    assert torch.equal(tokens, torch.cat([batch["input_ids"] for batch in again.calibration]))
    assert not torch.equal(tokens, torch.cat([batch["input_ids"] for batch in other.calibration]))
    batch = problem.calibration[0]
    logits = problem.model(batch["input_ids"]).logits[:, :-1].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, batch["input_ids"][:, 1:].flatten())
    torch.testing.assert_close(problem.loss(problem.model, batch), expected)


def test_each_document_gives_a_window_before_any_gives_a_second(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{WORDS[i]} " * 10 for i in range(10)]
    give(monkeypatch, pa.table({"text": texts}), text="text")
    problem = track.build(spec(language, samples=10, length=10), seed=3)
    words = torch.cat([batch["input_ids"][:, 1] for batch in problem.calibration])
    assert len(words.unique()) == 10


def test_batches_of_text_hold_a_limited_number_of_tokens(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.compress.calibration.TOKENS", 50)
    give(monkeypatch, pa.table({"text": [document(0, 50)]}), text="text")
    problem = track.build(spec(language, samples=5, length=20), seed=0)
    assert [tuple(batch["input_ids"].shape) for batch in problem.calibration] == [(2, 20), (2, 20), (1, 20)]


def test_token_ids_are_taken_as_they_are(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, pa.table({"input_ids": [[1, 2, 3, 4], [5, 6, 7, 8]]}))
    problem = track.build(spec(language, samples=6, length=4), seed=0)
    rows = {tuple(row.tolist()) for row in problem.calibration[0]["input_ids"]}
    assert rows == {(1, 2, 3, 4), (5, 6, 7, 8)}


@pytest.mark.parametrize(
    ("length", "texts", "message"),
    [
        (32, ["the of", "the of and"], "is shorter than the window: its longest text has 3 tokens of model"),
        (41, ["the of"], "calibration: length=41 is more than the 40 positions of model"),
        (8, [], "calibration: dataset digits:train has no rows"),
    ],
)
def test_text_that_cannot_be_used(
    language: str, monkeypatch: pytest.MonkeyPatch, length: int, texts: list[str], message: str
) -> None:
    give(monkeypatch, pa.table({"text": pa.array(texts, pa.string())}), text="text")
    with pytest.raises(BadInput) as refusal:
        track.build(spec(language, length=length), seed=0)
    assert message in str(refusal.value)


def test_sentences_for_an_encoder_are_padded_and_masked(encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"one": [document(i, 3 + i) for i in range(20)], "two": ["of"] * 20, "score": list(range(20))})
    give(monkeypatch, table)
    problem = track.build(spec(encoder, samples=40, length=10), seed=0)
    assert [len(batch["input_ids"]) for batch in problem.calibration] == [32, 8]
    lengths = torch.cat([batch["attention_mask"].sum(1) for batch in problem.calibration])
    assert sorted(lengths.tolist()) == sorted([1] * 20 + [min(3 + i, 10) for i in range(20)])
    with pytest.raises(BadInput, match="calibration: samples=41, but dataset digits:train has 40 texts"):
        track.build(spec(encoder, samples=41), seed=0)
    solution = track.solve(get("gptq"), problem, {"bits": 3})
    assert solution.packed["encoder.layer.1.output.dense"].shape == (16, 32)


def test_solve_evaluate_and_measure(vision: str) -> None:
    problem = track.build(spec(vision), seed=0)
    original = problem.handle.load()
    solution = track.solve(get("gptq"), problem, {"bits": 3, "group_size": 16})
    subject = track.subject(problem, solution)
    assert subject.kind == "vision"
    assert subject.model is not problem.model
    for name, tensor in subject.model.state_dict().items():
        layer = name.removesuffix(".weight")
        packed = solution.packed.get(layer)
        expected = original.state_dict()[name] if packed is None else packed.dequantize()
        assert torch.equal(tensor, expected)
    size = track.size(problem, solution)
    assert size["bits_per_weight"] == pytest.approx(3 + (16 + 3) / 16)
    assert size["layers_bytes"] == sum(packed.bits for packed in solution.packed.values()) // 8
    assert size["uncompressed_bytes"] == sum(4 * tensor.numel() for tensor in original.parameters())


def entry_of(function: Any, input_type: str) -> Entry:
    return Entry("method", "toy", __name__, "A toy.", "compress", None, (), {}, input_type, known=function)


def test_what_a_method_changes_without_storing_it_is_not_evaluated(vision: str) -> None:
    def cheat(problem: CompressProblem) -> Solution:
        problem.model.norm.weight.data.mul_(2)
        return Solution({}, {"norm.bias": torch.full((16,), 0.5)})

    problem = track.build(spec(vision), seed=0)
    solution = track.solve(entry_of(cheat, "CompressProblem"), problem, {})
    model = track.subject(problem, solution).model
    assert torch.equal(model.norm.weight, torch.ones(16))
    assert torch.equal(model.norm.bias, torch.full((16,), 0.5))


def test_parameters_reach_the_method_and_weights_are_checked_for_it(vision: str) -> None:
    def halve(layer: LayerProblem, *, by: float) -> Any:
        from harness import Dense

        return Dense(layer.weight * by)

    problem = track.build(spec(vision), seed=0)
    before: Tensor = problem.model.blocks[0].mlp.fc1.weight.clone()
    track.solve(entry_of(halve, "LayerProblem"), problem, {"by": 0.5})
    assert torch.equal(problem.model.blocks[0].mlp.fc1.weight, before / 2)

    problem = track.build(spec(vision), seed=0)
    problem.model.head.weight[0, 0] = float("nan")
    with pytest.raises(BadInput, match=r"tensor head\.weight holds a number that is not finite"):
        track.solve(entry_of(lambda problem: Solution({}), "CompressProblem"), problem, {})


def test_a_problem_without_calibration_serves_methods_that_read_none(vision: str) -> None:
    assert track.solve(get("rtn"), track.build({"model": vision}, seed=0), {"bits": 3}).packed
    with pytest.raises(BadInput, match="the calibration data has no rows"):
        track.solve(get("gptq"), track.build({"model": vision}, seed=0), {"bits": 3})
