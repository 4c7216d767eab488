"""Scale folding and awq."""

from __future__ import annotations

import copy

import pytest
import torch

from harness import BadInput, compress_layers
from harness.compress import samples
from harness.compress.fold import fold_scale
from harness.models.families import family_of
from harness.models.outliers import plant_outliers
from harness.packed import dense_weights
from methods.quantization.awq import awq, clip_weight
from methods.quantization.grids import fit
from methods.quantization.rtn import rtn


def positive(size: int, seed: int) -> torch.Tensor:
    return samples.normal(size, seed=seed).exp()


def random_model(kind: str, **config):
    """A tiny random model in eval mode whose norms are not all ones, and its config."""
    import transformers

    configuration = getattr(transformers, f"{kind}Config")(vocab_size=64, **config)
    with torch.random.fork_rng(devices=[]):
        model = getattr(transformers, f"{kind}ForCausalLM" if kind != "GPT2" else "GPT2LMHeadModel")(configuration)
    model.eval().requires_grad_(False)
    for number, (name, parameter) in enumerate(model.named_parameters()):
        drawn = 0.1 * samples.normal(*parameter.shape, seed=number)
        centre = 1.0 if parameter.ndim == 1 and name.endswith("weight") and kind != "Gemma" else 0.0
        parameter.copy_((drawn + centre).half())
    return model, configuration


DECODER = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}
MODELS = {
    "Llama": {**DECODER, "num_key_value_heads": 4, "attention_bias": True},
    "Gemma": {**DECODER, "num_key_value_heads": 4, "head_dim": 8},
    "OPT": {**DECODER, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32},
    "GPTNeoX": DECODER,
}
TOKENS = torch.randint(64, (2, 12), generator=torch.Generator().manual_seed(0))


def fold_everything(model, config, dtype) -> dict[str, torch.Tensor]:
    family = family_of(config)
    changed = {}
    for name in family.block_names(model):
        block = model.get_submodule(name)
        pairs = family.fold_pairs(block, config)
        assert pairs
        for number, pair in enumerate(pairs):
            layer = block.get_submodule(pair.layers[0])
            width = layer.weight.shape[0] if type(layer).__name__ == "Conv1D" else layer.weight.shape[1]
            scale = positive(width, seed=number)
            changed |= {f"{name}.{key}": value for key, value in fold_scale(block, pair, scale, dtype=dtype).items()}
    return changed


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fold_leaves_the_logits_as_they_were(kind, dtype):
    model, config = random_model(kind, **MODELS[kind])
    if dtype == torch.bfloat16:  # a bias is rounded when it is stored, a norm's weight costs nothing
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    before = model(TOKENS).logits
    fold_everything(model, config, dtype)
    assert (model(TOKENS).logits - before).abs().max() <= 1e-4


@pytest.mark.parametrize("kind", MODELS)
def test_what_a_fold_reports_is_what_the_block_holds(kind):
    model, config = random_model(kind, **MODELS[kind])
    original = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    changed = fold_everything(model, config, torch.bfloat16)
    linear = {name for name, tensor in original.items() if tensor.ndim == 2}
    for name, tensor in model.state_dict().items():
        if name in changed:
            assert changed[name].dtype == torch.bfloat16
            assert torch.equal(changed[name].float(), tensor)
        elif name not in linear:
            assert torch.equal(tensor, original[name]), name


def test_grouped_queries_rule_out_folding_the_values():
    model, config = random_model("Llama", **{**MODELS["Llama"], "num_key_value_heads": 2})
    pairs = family_of(config).fold_pairs(model.model.layers[0], config)
    assert [pair.source for pair in pairs] == ["input_layernorm", "post_attention_layernorm", "mlp.up_proj"]


def test_a_norm_weight_that_is_zero_keeps_its_channel():
    model, config = random_model("Llama", **MODELS["Llama"])
    block = model.model.layers[0]
    block.input_layernorm.weight[3] = 0
    before = copy.deepcopy(block)
    pair = family_of(config).fold_pairs(block, config)[0]
    fold_scale(block, pair, positive(32, seed=1), dtype=torch.float16)
    assert block.input_layernorm.weight[3] == 0
    assert torch.equal(block.self_attn.q_proj.weight[:, 3], before.self_attn.q_proj.weight[:, 3])
    assert all(parameter.isfinite().all() for parameter in block.parameters())


def outputs(model, solution) -> torch.Tensor:
    """What the compressed model answers: the original one with the solution's stored tensors in it."""
    return dense_weights(model, solution.packed, solution.changed)(TOKENS).logits


def test_without_scales_and_clipping_it_is_rtn_bit_for_bit():
    awq_solution = awq(samples.llama_problem(), bits=3, group_size=32, grid=1, clip_search=False)
    rtn_solution = compress_layers(samples.llama_problem(), lambda layer: rtn(layer, bits=3, group_size=32))
    for name, packed in rtn_solution.packed.items():
        assert torch.equal(awq_solution.packed[name].dequantize(), packed.dequantize()), name
    original = samples.llama_problem().model.state_dict()
    for name, tensor in awq_solution.changed.items():
        assert torch.equal(tensor.float(), original[name]), name


def test_the_chosen_scales_are_never_worse_than_rounding_alone():
    log = awq(samples.llama_problem(), bits=3, group_size=32).log
    assert len(log) == 2 * 4
    assert all(entry["loss"] <= entry["rtn_loss"] for entry in log.values())
    # The calibration inputs have channels of unequal size, so plain rounding cannot be the best everywhere.
    assert any(entry["loss"] < 0.95 * entry["rtn_loss"] for entry in log.values())


def test_the_loss_of_attention_is_that_of_its_output():
    problem = samples.llama_problem()
    log = awq(problem, bits=3, group_size=32).log
    model = samples.llama_problem().model
    attention, outs = model.model.layers[0].self_attn, []
    attention.register_forward_hook(lambda module, args, output: outs.append(output[0]))
    for _ in ("before", "after"):
        for batch in problem.calibration:
            model(**batch)
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj):
            groups = layer.weight.unflatten(1, (-1, 32))
            layer.weight.copy_(fit(groups, bits=3).round(groups).flatten(1))
    half = len(outs) // 2
    expected = (torch.cat(outs[half:]) - torch.cat(outs[:half])).square().mean()
    assert log["model.layers.0.input_layernorm fold"]["rtn_loss"] == pytest.approx(float(expected), rel=1e-4)


def test_the_loss_of_one_layer_is_that_of_its_output():
    problem = samples.llama_problem()
    log = awq(problem, bits=3, group_size=32).log
    model = samples.llama_problem().model
    down, seen = model.model.layers[0].mlp.down_proj, []
    hook = down.register_forward_pre_hook(lambda module, args: seen.append(args[0].flatten(0, -2)))
    for batch in problem.calibration:
        model(**batch)
    hook.remove()
    groups = down.weight.unflatten(1, (-1, 32))
    change = fit(groups, bits=3).round(groups).flatten(1) - down.weight
    expected = (torch.cat(seen) @ change.T).square().mean()
    assert log["model.layers.0.mlp.up_proj fold"]["rtn_loss"] == pytest.approx(float(expected), rel=1e-4)


def test_what_is_stored_is_the_model_it_was_searched_on():
    """At 8 bits rounding is harmless; a norm folded by other values than the stored ones would not be."""
    original = samples.llama_problem().model(TOKENS).logits
    solution = awq(samples.llama_problem(), bits=8, group_size=32)
    assert {tensor.dtype for tensor in solution.changed.values()} == {torch.float16}
    assert "model.layers.1.post_attention_layernorm.weight" in solution.changed
    error = (outputs(samples.llama_problem().model, solution) - original).norm() / original.norm()
    assert error < 0.02


def test_sixteen_bits_change_nothing():
    solution = awq(samples.llama_problem(), bits=16)
    assert not solution.changed
    assert torch.equal(outputs(samples.llama_problem().model, solution), samples.llama_problem().model(TOKENS).logits)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_better_than_rounding_where_activations_have_outliers(seed):
    def planted():
        problem = samples.llama_problem()
        generator = torch.Generator().manual_seed(seed)
        plant_outliers(problem.model, problem.handle.family, generator=generator, gain=10.0)
        return problem

    original = planted().model(TOKENS).logits
    rounding = compress_layers(planted(), lambda layer: rtn(layer, bits=3, group_size=64))
    error = {}
    for name, solution in {"awq": awq(planted(), bits=3, group_size=64), "rtn": rounding}.items():
        error[name] = (outputs(planted().model, solution) - original).square().mean()
    assert error["awq"] < error["rtn"]


@pytest.mark.parametrize("width", [16, 32, 64])
def test_clip_search_finds_the_best_threshold_of_each_group(width):
    weight, x = samples.normal(5, 64, seed=1) ** 3, samples.normal(48, 64, seed=2)
    found = clip_weight(weight, x, bits=3, width=width)
    for row in range(5):
        for start in range(0, 64, width):
            part = slice(start, start + width)
            w = weight[row, part]
            candidates = [w.clamp(-w.abs().max() * (1 - i / 20), w.abs().max() * (1 - i / 20)) for i in range(10)]
            changes = [x[:, part] @ (fit(clipped, bits=3).round(clipped) - w) for clipped in candidates]
            errors = [float(change.double().square().sum()) for change in changes]
            assert torch.equal(found[row, part], candidates[errors.index(min(errors))])


def test_queries_and_keys_are_not_clipped():
    clipped = awq(samples.llama_problem(), bits=3, group_size=32).packed
    whole = awq(samples.llama_problem(), bits=3, group_size=32, clip_search=False).packed
    first = "model.layers.0.self_attn."
    same = {
        name
        for name in ("q_proj", "k_proj", "v_proj")
        if torch.equal(clipped[first + name].dequantize(), whole[first + name].dequantize())
    }
    assert same == {"q_proj", "k_proj"}


def test_a_fold_never_touches_a_layer_that_stays():
    problem = samples.llama_problem()
    stays = "model.layers.0.self_attn.k_proj"
    problem.layers = [n for n in awq(samples.llama_problem(), bits=4, grid=1).packed if n != stays]
    solution = awq(problem, bits=3, group_size=32)
    assert stays not in solution.packed
    assert "model.layers.0.input_layernorm.weight" not in solution.changed
    assert "model.layers.1.input_layernorm.weight" in solution.changed
    assert torch.equal(
        problem.model.get_submodule(stays).weight, samples.llama_problem().model.get_submodule(stays).weight
    )


def test_a_network_without_folds_gets_the_clip_search():
    solution = awq(samples.network_problem(), bits=3, group_size=32)
    assert set(solution.packed) == {"first", "second"}
    assert not solution.changed
    assert not solution.log


@pytest.mark.parametrize("make", [samples.llama_problem, samples.network_problem])
def test_a_group_size_that_does_not_divide_is_refused(make):
    with pytest.raises(BadInput, match=r"layer .*group_size=48.*128 inputs"):
        awq(make(), bits=3, group_size=48)
