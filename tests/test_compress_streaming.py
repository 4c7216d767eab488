"""Models that are read from their checkpoint block by block, against the same models in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from compress_zoo import coarse, generator, make_problem, text_batches

from harness.compress import CompressProblem, LayerProblem, compress_layers, walk_blocks
from harness.models import open_model
from harness.packed import ShardWriter, Uniform, load
from methods.quantization.gptq import gptq


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("llama")
    make_problem("llama").model.save_pretrained(folder, max_shard_size="20KB")
    return str(folder)


def from_checkpoint(folder: str, *, streamed: bool) -> CompressProblem:
    handle = open_model(folder)
    return CompressProblem(handle, handle.skeleton() if streamed else handle.load(), text_batches(), generator(7))


@pytest.mark.parametrize("quantize", [coarse, lambda layer: gptq(layer, bits=3)])
def test_a_model_read_block_by_block_gives_the_same_solution(checkpoint: str, quantize) -> None:
    whole = compress_layers(from_checkpoint(checkpoint, streamed=False), quantize)
    problem = from_checkpoint(checkpoint, streamed=True)
    most = 0

    def watched(layer: LayerProblem) -> Uniform:
        nonlocal most
        packed = quantize(layer)
        present = sum(p.numel() for p in problem.model.parameters() if not p.is_meta)
        most = max(most, present)
        return packed

    streamed = compress_layers(problem, watched)
    block = sum(p.numel() for p in problem.model.model.layers[0].parameters())
    assert most == block
    assert all(parameter.is_meta for parameter in problem.model.parameters())
    assert whole.packed.keys() == streamed.packed.keys()
    for name, packed in whole.packed.items():
        assert torch.equal(packed.dequantize(), streamed.packed[name].dequantize())


def test_a_streamed_block_that_nobody_asked_about_is_read_again_when_it_is_gone_through(checkpoint: str) -> None:
    def mixed(layer: LayerProblem) -> Uniform:
        return coarse(layer) if layer.name.startswith("model.layers.0.") else gptq(layer, bits=3)

    whole = compress_layers(from_checkpoint(checkpoint, streamed=False), mixed)
    streamed = compress_layers(from_checkpoint(checkpoint, streamed=True), mixed)
    for name, packed in whole.packed.items():
        assert torch.equal(packed.dequantize(), streamed.packed[name].dequantize())


def test_a_streamed_model_is_stored_block_by_block(checkpoint: str, tmp_path: Path) -> None:
    whole = compress_layers(from_checkpoint(checkpoint, streamed=False), lambda layer: gptq(layer, bits=3))
    problem = from_checkpoint(checkpoint, streamed=True)
    with ShardWriter(tmp_path / "compressed") as writer:
        streamed = compress_layers(problem, lambda layer: gptq(layer, bits=3), store=writer.write)
    assert not streamed.packed
    assert writer.count == 3
    stored = load(tmp_path / "compressed")
    assert stored.log == streamed.log == whole.log
    assert stored.packed.keys() == whole.packed.keys()
    for name, packed in whole.packed.items():
        assert torch.equal(packed.dequantize(), stored.packed[name].dequantize())


def test_a_streamed_model_can_be_paired(checkpoint: str) -> None:
    twins = {}
    for streamed in (False, True):
        problem = from_checkpoint(checkpoint, streamed=streamed)
        for block in walk_blocks(problem, paired=True):
            for group in block.groups:
                for layer in group:
                    twins[streamed, layer.name] = torch.cat([twin for _, twin in layer.paired_inputs()])
                    block.set(layer.name, coarse(layer))
    for (streamed, name), twin in twins.items():
        assert torch.equal(twin, twins[not streamed, name])
