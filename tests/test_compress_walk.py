"""The block driver against a naive one that runs the whole model again for every group of layers."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from compress_zoo import MODELS, coarse, generator, make_problem, tokens
from torch import Tensor, nn

from harness.compress import CompressProblem, LayerProblem, compress_layers, view, walk_blocks
from harness.errors import BadInput, TrialFailed
from harness.packed import Dense, Rows
from methods.quantization.gptq import gptq


def naive_inputs(model: nn.Module, name: str, batches: list[dict[str, Tensor]]) -> list[Tensor]:
    """Run the whole model with a hook on one layer; its inputs as rows, without padding."""
    layer = model.get_submodule(name)
    rows: list[Tensor] = []
    for batch in batches:
        mask = batch.get("attention_mask")

        def note(module: nn.Module, args: tuple, mask: Tensor | None = mask) -> None:
            x = args[0]
            if isinstance(module, nn.Conv2d):
                x = nn.functional.unfold(x, module.kernel_size, padding=module.padding, stride=module.stride).mT
            rows.append(x[mask.bool()] if mask is not None else x.reshape(-1, x.shape[-1]))

        hook = layer.register_forward_pre_hook(note)
        with torch.no_grad():
            model(**batch)
        hook.remove()
    return rows


def naive_walk(model: nn.Module, names: list[list[str]], batches: list[dict[str, Tensor]]) -> dict[str, list[Tensor]]:
    """The inputs of each layer after all groups before its own were replaced."""
    seen = {}
    for group in names:
        for name in group:
            seen[name] = naive_inputs(model, name, batches)
        for name in group:
            layer = model.get_submodule(name)
            problem = LayerProblem(name, view.matrix(layer), generator=generator())
            view.set_matrix(layer, coarse(problem).dequantize())
    return seen


@pytest.mark.parametrize("name", [name for name in MODELS if name != "unknown"])
def test_inputs_are_those_of_a_naive_true_sequential_walk(name: str) -> None:
    problem = make_problem(name)
    reference = copy.deepcopy(problem.model)
    original = copy.deepcopy(problem.model)
    names: list[list[str]] = []
    seen: dict[str, list[Tensor]] = {}
    twins: dict[str, list[Tensor]] = {}
    for block in walk_blocks(problem):
        for group in block.groups:
            names.append([layer.name for layer in group])
            for layer in group:
                seen[layer.name] = list(layer.inputs())
                pairs = list(layer.paired_inputs())
                twins[layer.name] = [twin for _, twin in pairs]
                for x, (again, _) in zip(seen[layer.name], pairs, strict=True):
                    assert torch.equal(x, again)
                block.set(layer.name, coarse(layer))
    expected = naive_walk(reference, names, problem.calibration)
    assert len(expected) > 5
    for layer_name, rows in expected.items():
        unchanged = naive_inputs(original, layer_name, problem.calibration)
        for x, twin, y, z in zip(seen[layer_name], twins[layer_name], rows, unchanged, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(twin, z, rtol=1e-4, atol=1e-4)
    for (key, value), other in zip(problem.model.state_dict().items(), reference.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-4, atol=1e-4, msg=key)


def test_every_layer_of_the_blocks_is_compressed_and_nothing_else() -> None:
    problem = make_problem("llama")
    before = copy.deepcopy(problem.model.state_dict())
    solution = compress_layers(problem, coarse)
    inside = {name for name, module in problem.model.named_modules() if isinstance(module, nn.Linear)} - {"lm_head"}
    assert solution.packed.keys() == inside
    assert solution.log["model.layers.0.mlp.up_proj"]["weight_error"] > 0.01
    for name, tensor in problem.model.state_dict().items():
        layer = name.removesuffix(".weight")
        expected = solution.packed[layer].dequantize() if layer in solution.packed else before[name]
        assert torch.equal(tensor, expected)


def count_forwards(model: nn.Module) -> Counter:
    counts: Counter = Counter()
    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda module, args, name=name: counts.update([name]))
    return counts


def test_nothing_runs_when_nobody_asks_for_inputs() -> None:
    problem = make_problem("llama")
    counts = count_forwards(problem.model)
    compress_layers(problem, coarse)
    assert not counts


def test_a_group_is_run_only_as_far_as_its_layer_and_states_are_kept_between_blocks() -> None:
    problem = make_problem("llama")
    counts = count_forwards(problem.model)
    compress_layers(problem, lambda layer: gptq(layer, bits=3))
    batches, blocks, groups = 2, 3, 4
    assert counts["model.embed_tokens"] == batches
    assert counts["model.norm"] == counts["lm_head"] == 0
    # Once for each group and once to go on, which the last block does not.
    assert counts["model.layers.0"] == batches * (groups + 1) + batches  # and once more to see how it is called
    assert counts[f"model.layers.{blocks - 1}.self_attn.q_proj"] == batches * groups
    # Of the runs for q, o and up, only the first batch's goes to the end.
    assert counts[f"model.layers.{blocks - 1}.mlp.down_proj"] == 3 + batches


def test_blocks_that_nobody_asked_about_are_gone_through_when_a_later_one_is() -> None:
    problem, reference = make_problem("llama"), make_problem("llama")
    eager = {}
    for block in walk_blocks(reference):
        eager[block.name] = list(block.inputs())
        for group in block.groups:
            for layer in group:
                block.set(layer.name, coarse(layer))
    for block in walk_blocks(problem):
        if block.index == 2:
            for x, y in zip(block.inputs(), eager[block.name], strict=True):
                assert torch.equal(x, y)
        for group in block.groups:
            for layer in group:
                block.set(layer.name, coarse(layer))


def test_paired_states_must_be_followed_from_the_first_block() -> None:
    walk = walk_blocks(make_problem("llama"))
    next(walk)
    second = next(walk)
    with pytest.raises(ValueError, match="paired=True"):
        next(second.groups[0][0].paired_inputs())
    original = copy.deepcopy(make_problem("llama").model)
    problem = make_problem("llama")
    for block in walk_blocks(problem, paired=True):
        if block.index == 2:
            (_, twin), *_ = block.groups[3][0].paired_inputs()
            expected = naive_inputs(original, block.groups[3][0].name, problem.calibration)
            torch.testing.assert_close(twin, expected[0], rtol=1e-4, atol=1e-4)
        for group in block.groups:
            for layer in group:
                block.set(layer.name, coarse(layer))


def test_pairs_asked_for_after_a_layer_was_replaced_are_still_the_original_models() -> None:
    problem = make_problem("llama")
    original = copy.deepcopy(problem.model)
    block = next(walk_blocks(problem))
    block.set("model.layers.0.self_attn.v_proj", coarse(block.groups[0][2]))
    (x, twin), *_ = block.groups[1][0].paired_inputs()
    expected = naive_inputs(original, "model.layers.0.self_attn.o_proj", problem.calibration)
    torch.testing.assert_close(twin, expected[0], rtol=1e-4, atol=1e-4)
    assert (x - twin).abs().max() > 0.01


def test_block_calls_and_records() -> None:
    problem = make_problem("llama")
    for block in walk_blocks(problem):
        call = block.calls()[0]
        output = call(block.module)
        recorded = next(block.record("self_attn", "mlp.down_proj"))
        attention = recorded["self_attn"]
        torch.testing.assert_close(attention(block.module.self_attn)[0], attention.output[0])
        assert recorded["mlp.down_proj"].hidden.shape == (3, 12, 48)
        for group in block.groups:
            for layer in group:
                block.set(layer.name, coarse(layer))
        assert not torch.equal(call(block.module), output)
        if block.index == 0:
            torch.testing.assert_close(block.original_calls()[0](block.original), output)


def test_a_record_runs_a_block_only_as_far_as_it_must() -> None:
    problem = make_problem("llama")
    block = next(walk_blocks(problem))
    runs: list[str] = []
    block.module.mlp.register_forward_hook(lambda *_: runs.append("mlp"))
    found = [recorded["self_attn"] for recorded in block.record("self_attn")]
    assert runs == ["mlp"]  # on the first batch, to see that attention is called once
    for call in found:
        torch.testing.assert_close(call(block.module.self_attn)[0], call.output[0])
    (first, last), both = found, list(block.record("self_attn", "mlp"))
    assert [set(recorded) for recorded in both] == [{"self_attn", "mlp"}] * 2
    assert torch.equal(first.output[0], both[0]["self_attn"].output[0])
    assert torch.equal(last.output[0], both[1]["self_attn"].output[0])


def test_a_record_of_a_module_that_is_called_twice_is_of_its_last_call() -> None:
    problem = make_problem("llama")
    block = next(walk_blocks(problem))
    norm = block.module.input_layernorm
    block.module.post_attention_layernorm = norm
    for call, recorded in zip(block.calls(), block.record("input_layernorm"), strict=True):
        assert not torch.equal(recorded["input_layernorm"].hidden, call.hidden)


def test_the_inputs_of_a_block_are_gone_when_the_next_ones_were_asked_for() -> None:
    walk = walk_blocks(make_problem("llama"))
    first = next(walk)
    assert len(list(first.inputs())) == 2
    list(next(walk).inputs())
    with pytest.raises(ValueError, match=r"block model\.layers\.0: its inputs are gone"):
        first.calls()


def test_rows_times_matrix_is_what_the_layer_computes() -> None:
    problem = make_problem("unknown")
    model = copy.deepcopy(problem.model)
    images = problem.calibration[0]["pixel_values"]
    block = next(walk_blocks(problem))
    layers = {layer.name: layer for group in block.groups for layer in group}
    assert list(layers) == ["first[0]", "first[1]", *(f"depthwise[{k}]" for k in range(6)), "last"]
    middle = model.first(images)
    for name, output in (("first", middle), ("depthwise", model.depthwise(middle.relu()))):
        parts = [layer for layer in layers.values() if layer.name.startswith(f"{name}[")]
        products = [next(layer.inputs()) @ layer.weight.T for layer in parts]
        expected = output - getattr(model, name).bias[:, None, None]
        torch.testing.assert_close(torch.cat(products, 1), expected.permute(0, 2, 3, 1).flatten(0, 2))


def test_grouped_convolutions_are_put_together_from_their_groups() -> None:
    problem = make_problem("unknown")
    counts = count_forwards(problem.model)
    solution = compress_layers(problem, lambda layer: gptq(layer, bits=3))
    assert counts["last"] < 4 * 2  # not once for each of the nine matrices
    assert isinstance(solution.packed["first"], Rows)
    for name in ("first", "depthwise", "last"):
        values = solution.packed[name].dequantize()
        assert torch.equal(view.matrix(problem.model.get_submodule(name)), values)
        assert 0.001 < (values - view.matrix(make_problem("unknown").model.get_submodule(name))).abs().max() < 1


def test_depthwise_groups_see_the_inputs_after_the_layers_before_were_replaced() -> None:
    problem = make_problem("unknown")
    block = next(walk_blocks(problem))
    for group in block.groups:
        for layer in group:
            if layer.name.startswith("depthwise"):
                k = int(layer.name[-2])
                x = problem.model.first(problem.calibration[0]["pixel_values"]).relu()[:, k]
                centre = next(layer.inputs())[:, 4]  # of a 3 x 3 kernel
                torch.testing.assert_close(centre, x.flatten())
            block.set(layer.name, coarse(layer))


def test_only_the_named_layers_are_compressed() -> None:
    chosen = ["model.layers.1.self_attn.k_proj", "model.layers.1.mlp.down_proj"]
    solution = compress_layers(make_problem("llama", layers=chosen), lambda layer: gptq(layer, bits=3))
    assert list(solution.packed) == chosen
    with pytest.raises(BadInput, match=r"'model.layers.1.self_attn.kproj' is not a layer of a block; did you mean"):
        compress_layers(make_problem("llama", layers=["model.layers.1.self_attn.kproj"]), coarse)


def test_layers_of_a_group_share_their_statistics() -> None:
    problem = make_problem("llama")
    block = next(walk_blocks(problem))
    q, k, v = block.groups[0]
    assert q.hessian() is k.hessian() is v.hessian() is block.groups[0][0].hessian()
    assert block.groups[1][0].hessian() is not q.hessian()


def draws(problem: CompressProblem) -> dict[str, float]:
    seen = {}

    def draw(layer: LayerProblem) -> Dense:
        seen[layer.name] = float(torch.rand((), generator=layer.generator))
        return layer.dense()

    compress_layers(problem, draw)
    return seen


def test_each_layer_draws_from_its_own_generator() -> None:
    problem = make_problem("llama")
    torch.rand(5, generator=problem.generator)  # what was drawn before does not matter
    first = draws(problem)
    assert first == draws(make_problem("llama"))
    assert len(set(first.values())) == len(first)
    few = draws(make_problem("llama", layers=["model.layers.2.mlp.up_proj"]))
    assert few["model.layers.2.mlp.up_proj"] == first["model.layers.2.mlp.up_proj"]
    other = make_problem("llama")
    other.generator = generator(8)
    assert draws(other)["model.layers.0.mlp.up_proj"] != first["model.layers.0.mlp.up_proj"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(value: float) -> None:
    problem = make_problem("gpt2")
    problem.model.transformer.h[1].mlp.c_fc.weight[0, 0] = value
    with pytest.raises(
        BadInput, match=r"tensor transformer\.h\.1\.mlp\.c_fc\.weight holds a number that is not finite"
    ):
        compress_layers(problem, coarse)


def test_compressed_weights_that_are_not_finite_or_of_another_shape_fail_the_trial() -> None:
    def broken(layer: LayerProblem) -> Dense:
        return Dense(torch.full_like(layer.weight, float("nan")))

    with pytest.raises(TrialFailed, match=r"layer model\.layers\.0\.self_attn\.q_proj: .* not finite"):
        compress_layers(make_problem("llama"), broken)
    with pytest.raises(TrialFailed, match=r"layer model\.layers\.0\.self_attn\.q_proj: .* shape \(32, 31\)"):
        compress_layers(make_problem("llama"), lambda layer: Dense(layer.weight[:, 1:]))


@pytest.mark.parametrize("batches", [[], [{"input_ids": torch.zeros(0, 8, dtype=torch.long)}]])
def test_no_calibration_rows(batches: list[dict[str, Tensor]]) -> None:
    problem = make_problem("llama")
    problem.calibration = batches
    with pytest.raises(BadInput, match="the calibration data has no rows"):
        compress_layers(problem, lambda layer: gptq(layer, bits=3))
    compress_layers(make_problem("llama"), coarse)


def test_input_that_is_all_padding_has_no_rows() -> None:
    problem = make_problem("bert")
    problem.calibration = [{"input_ids": tokens(2, 4), "attention_mask": torch.zeros(2, 4, dtype=torch.long)}]
    with pytest.raises(BadInput, match=r"layer encoder\.layer\.0\.attention\.self\.query: no calibration rows"):
        compress_layers(problem, lambda layer: gptq(layer, bits=3))
