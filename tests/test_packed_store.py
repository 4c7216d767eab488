"""Compressed models on disk: outputs come back bit for bit, files are whole or absent, bad files say what is wrong."""

from __future__ import annotations

import errno
import json
import os
import struct

import pytest
import torch
from packed_samples import every_kind, generator, matrix
from safetensors.torch import save_file

from harness.errors import BadInput
from harness.packed import Dense, ShardWriter, load, load_metadata, load_model_tensors, save, store
from harness.solution import Solution


def payload(path) -> int:
    """Bytes of a safetensors file after its header."""
    (header,) = struct.unpack("<Q", path.read_bytes()[:8])
    return path.stat().st_size - 8 - header


def solution(seed: int = 0, prefix: str = "block") -> Solution:
    packed = {f"{prefix}.{kind}": weight for kind, weight in every_kind(seed, 5, 13).items()}
    changed = {f"{prefix}.norm.weight": torch.randn(7, generator=generator()).bfloat16()}
    return Solution(packed, changed, log={f"{prefix}.dense": {"loss": 0.1}})


def assert_same(one: Solution, other: Solution) -> None:
    assert one.packed.keys() == other.packed.keys()
    for name, weight in one.packed.items():
        assert torch.equal(weight.dequantize(), other.packed[name].dequantize())
        assert weight.budget() == other.packed[name].budget()
    assert one.changed.keys() == other.changed.keys()
    for name, tensor in one.changed.items():
        assert tensor.dtype == other.changed[name].dtype
        assert torch.equal(tensor, other.changed[name])
    assert one.log == other.log


def test_round_trip(tmp_path):
    path = tmp_path / "model.safetensors"
    save(path, solution(), metadata={"method": "gptq", "bits": 3})
    assert_same(solution(), load(path))
    assert load_metadata(path) == {"method": "gptq", "bits": 3}
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_payload_is_the_counted_bytes(tmp_path):
    path = tmp_path / "model.safetensors"
    for name, weight in solution().packed.items():
        save(path, Solution({name: weight}))
        assert 0 <= payload(path) - weight.bits // 8 <= 64 * len(weight.tensors())


def test_same_solution_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save(tmp_path / name, solution(), metadata={"y": 1, "x": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_complete_model(tmp_path):
    path = tmp_path / "model.safetensors"
    embedding = matrix(generator(), 6, 4)
    tensors = {
        "embed.weight": embedding,
        "head.weight": embedding,
        "fc.weight": torch.ones(2, 4),
        "norm.weight": torch.ones(4),
    }
    small = Solution({"fc": Dense(torch.ones(2, 4).half())}, {"norm.weight": torch.zeros(4)})
    save(path, small, model_tensors=tensors)
    assert_same(small, load(path))
    others = load_model_tensors(path)
    assert others.keys() == {"embed.weight", "head.weight"}
    assert torch.equal(others["head.weight"], embedding)
    assert payload(path) == embedding.nbytes + 2 * 4 * 2 + 4 * 4


def test_views_and_shared_memory_are_saved_as_their_own_values(tmp_path):
    whole = matrix(generator(), 6, 8)
    shared = Solution({"a": Dense(whole[:3]), "b": Dense(whole[:, 2:4]), "c": Dense(whole.T), "d": Dense(whole)})
    save(tmp_path / "m", shared)
    assert_same(shared, load(tmp_path / "m"))
    assert payload(tmp_path / "m") == sum(weight.bits for weight in shared.packed.values()) // 8


def test_two_tensors_of_one_name(tmp_path):
    clash = Solution({"a": Dense(torch.ones(1, 1))}, {"a.weight": torch.ones(1, 1)})
    with pytest.raises(ValueError, match=r"two tensors are named a\.weight"):
        save(tmp_path / "m", clash)


def test_data_hidden_in_the_description_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Dense, "meta", lambda self: {"weights": list(range(1000))})
    with pytest.raises(ValueError, match="store data in tensors"):
        save(tmp_path / "m", Solution({"a": Dense(torch.ones(1, 1))}))
    assert os.listdir(tmp_path) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save(path, solution(1))

    def full(tensors, file, metadata):
        file.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store, "save_file", full)
    with pytest.raises(BadInput, match=r"model\.safetensors: cannot be written: No space left on device"):
        save(path, solution(2))
    assert_same(solution(1), load(path))
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_the_old_file_is_replaced_and_never_overwritten(tmp_path):
    path = tmp_path / "model.safetensors"
    save(path, solution(1))
    old = load(path)
    os.link(path, tmp_path / "link")
    save(path, solution(2))
    assert_same(solution(1), load(tmp_path / "link"))
    assert_same(solution(1), old)
    assert_same(solution(2), load(path))


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(BadInput, match="cannot be written"):
        save(tmp_path / "no" / "model", solution())


def header_changed(path, **change):
    """Save a file whose header differs from what `save` writes."""
    tensors = {"a.weight": torch.ones(2, 2)}
    header = {"version": 1, "changed": [], "tied": {}, "log": {}, "metadata": {}}
    header["packed"] = {"a": {"kind": "dense", "meta": {}, "parts": ["weight"]}}
    save_file(tensors, path, metadata={"harness": json.dumps(header | change)})


BAD_FILES = {
    "truncated": (lambda p: (save(p, solution()), p.write_bytes(p.read_bytes()[:-10])), "not a readable safetensors"),
    "header only": (lambda p: (save(p, solution()), p.write_bytes(p.read_bytes()[:30])), "not a readable safetensors"),
    "empty": (lambda p: p.write_bytes(b""), "not a readable safetensors"),
    "text": (lambda p: p.write_text("suite: ptq-lm\n" * 9), "not a readable safetensors"),
    "pickle": (lambda p: torch.save({"a": torch.ones(2)}, p), "not a readable safetensors"),
    "foreign": (lambda p: save_file({"a": torch.ones(2)}, p), "not a compressed model: its header has no entry"),
    "no json": (lambda p: save_file({"a": torch.ones(2)}, p, metadata={"harness": "{"}), "damaged: its header is"),
    "json list": (lambda p: save_file({"a": torch.ones(2)}, p, metadata={"harness": "[]"}), "damaged: its header is"),
    "newer": (lambda p: header_changed(p, version=2), "version 2, which this program cannot read; it reads 1"),
    "unknown kind": (
        lambda p: header_changed(p, packed={"a": {"kind": "dence", "meta": {}, "parts": ["weight"]}}),
        "unknown kind of packed weight 'dence'; did you mean dense",
    ),
    "missing part": (
        lambda p: header_changed(p, packed={"b": {"kind": "dense", "meta": {}, "parts": ["weight"]}}),
        "damaged: it has no 'b.weight'",
    ),
    "other kind": (
        lambda p: header_changed(p, packed={"a": {"kind": "uniform", "meta": {}, "parts": ["weight"]}}),
        "damaged: packed weight of kind uniform",
    ),
    "not a dict": (lambda p: header_changed(p, packed={"a": 3}), "damaged"),
    "folder": (lambda p: p.mkdir(), "has no model.safetensors.index.json"),
    "absent": (lambda p: None, "no such file"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_named_with_the_reason(tmp_path, case):
    make, reason = BAD_FILES[case]
    path = tmp_path / "model.safetensors"
    make(path)
    with pytest.raises(BadInput) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shards(tmp_path):
    folder = tmp_path / "big"
    blocks = [solution(i, f"layers.{i}") for i in range(3)]
    with ShardWriter(folder, metadata={"method": "rtn"}) as writer:
        paths = [writer.write(block) for block in blocks]
        with pytest.raises(BadInput, match="not written to its end"):
            load(folder)
    assert [path.name for path in paths] == [f"model-0000{i}.safetensors" for i in (1, 2, 3)]
    whole = Solution({}, {}, {})
    for block in blocks:
        whole.packed |= block.packed
        whole.changed |= block.changed
        whole.log |= block.log
    assert_same(whole, load(folder))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["weight_map"]["layers.2.uniform.codes"] == "model-00003.safetensors"
    assert index["metadata"]["total_size"] == sum(payload(path) for path in paths)
    with pytest.raises(BadInput, match="holds a model already"):
        ShardWriter(folder)


def test_shards_of_a_run_that_failed_are_no_model(tmp_path):
    def interrupted():
        with ShardWriter(tmp_path) as writer:
            writer.write(solution())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    with pytest.raises(BadInput, match="not written to its end"):
        load(tmp_path)
    with ShardWriter(tmp_path) as writer:
        writer.write(solution(4))
    assert_same(solution(4), load(tmp_path))


def test_a_layer_written_twice(tmp_path):
    writer = ShardWriter(tmp_path)
    writer.write(solution())
    with pytest.raises(ValueError, match="was written in an earlier shard"):
        writer.write(solution())


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}'])
def test_damaged_index(tmp_path, text):
    (tmp_path / store.INDEX).write_text(text)
    with pytest.raises(BadInput, match=r"index\.json: damaged"):
        load(tmp_path)


def test_an_index_never_leads_out_of_its_folder(tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    save(tmp_path / "secret", solution())
    (folder / store.INDEX).write_text(json.dumps({"weight_map": {"a": "../secret"}}))
    with pytest.raises(BadInput, match="inner/secret: no such file"):
        load(folder)
