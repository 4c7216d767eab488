"""Scale folding and awq."""

from __future__ import annotations

import copy

import pytest
import torch

from harness.compress import samples
from harness.compress.fold import fold_scale
from harness.models.families import family_of


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
