"""Whole-model size: every tensor counted once, in the dtype it is stored in."""

from __future__ import annotations

import struct

import torch
from packed_samples import generator, quantized
from torch import nn

from harness.packed import Dense, LowRank, model_size, save
from harness.solution import Solution


class Tied(nn.Module):
    """Embedding 10x4 tied to the head, one layer 6x4 with bias, a batch norm of 6."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 10, bias=False)
        self.head.weight = self.embed.weight
        self.fc, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)


def test_every_tensor_counts_once():
    weight, _ = quantized(generator(), 6, 4, bits=2, group_size=-1, zeros=None)
    size = model_size(Tied(), {"fc": weight}, dtype=torch.bfloat16)
    layer = 6 * 1 + 6 * 2
    other = 2 * (40 + 6 + 4 * 6) + 8
    assert size == {
        "bits_per_weight": 8 * layer / 24,
        "model_bits_per_parameter": 8 * (layer + other) / 95,
        "model_bytes": layer + other,
        "layers_bytes": layer,
        "other_bytes": other,
        "uncompressed_bytes": 2 * (40 + 24 + 6 + 24) + 8,
        "parameters": 95,
        "weights": 24,
        "budget": {"codes": 48, "scales": 96},
        "multiply_adds": 24,
        "dense_multiply_adds": 24,
    }


def test_own_dtypes_without_a_storage_dtype():
    size = model_size(Tied(), {"fc": Dense(torch.ones(6, 4))})
    assert size["model_bytes"] == size["uncompressed_bytes"] == 4 * (40 + 24 + 6 + 24) + 8


def test_a_compressed_head_leaves_its_embedding():
    size = model_size(Tied(), {"head": Dense(torch.ones(10, 4).half())}, dtype=torch.float16)
    assert size["model_bytes"] == size["uncompressed_bytes"] + 2 * 40


def test_changed_tensors_count_in_their_dtype_and_new_ones_are_added():
    base = model_size(Tied(), {}, dtype=torch.float16)
    changed = {"norm.weight": torch.ones(6), "head.bias": torch.ones(10).half()}
    size = model_size(Tied(), {}, changed, dtype=torch.float16)
    assert size["other_bytes"] == base["other_bytes"] + 6 * 2 + 10 * 2
    assert base["bits_per_weight"] == base["model_bits_per_parameter"]


def test_stored_size_and_executed_work_are_apart():
    size = model_size(Tied(), {"fc": LowRank(torch.ones(6, 1), torch.ones(1, 4))})
    assert (size["multiply_adds"], size["dense_multiply_adds"]) == (10, 24)


def test_a_model_without_memory_has_the_same_size():
    with torch.device("meta"):
        skeleton = Tied()
    packed = {"fc": Dense(torch.ones(6, 4).half())}
    skeleton.head.weight = skeleton.embed.weight
    assert model_size(skeleton, packed, dtype=torch.float16) == model_size(Tied(), packed, dtype=torch.float16)
    tensors = Tied().state_dict(keep_vars=True)
    assert model_size(tensors, packed, dtype=torch.float16) == model_size(Tied(), packed, dtype=torch.float16)


def test_a_complete_file_has_that_size(tmp_path):
    model = Tied().half()
    weight, _ = quantized(generator(), 6, 4, bits=3, group_size=2, zeros="real")
    changed = {"norm.weight": torch.ones(6).bfloat16()}
    save(tmp_path / "m", Solution({"fc": weight}, changed), model_tensors=model.state_dict(keep_vars=True))
    (header,) = struct.unpack("<Q", (tmp_path / "m").read_bytes()[:8])
    size = model_size(model, {"fc": weight}, changed)
    assert (tmp_path / "m").stat().st_size - 8 - header == size["model_bytes"]
