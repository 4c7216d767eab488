"""Small random models of every family, as problems of the compress track."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from harness.compress import CompressProblem, LayerProblem
from harness.models.families import family_of
from harness.models.vision import digits_vit, resnet20
from harness.packed import Uniform
from methods.quantization.rtn import rtn

VOCABULARY = 50


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tokens(*shape: int) -> Tensor:
    return torch.randint(VOCABULARY, shape, generator=generator(3))


def text_batches() -> list[dict[str, Tensor]]:
    return [{"input_ids": tokens(3, 12)}, {"input_ids": tokens(2, 12).flip(1)}]


def padded_batches() -> list[dict[str, Tensor]]:
    mask = torch.ones(3, 9, dtype=torch.long)
    mask[0, 5:] = 0
    mask[2, 1:] = 0
    return [{"input_ids": tokens(3, 9), "attention_mask": mask}, {"input_ids": tokens(2, 4)}]


def image_batches(size: int, channels: int) -> list[dict[str, Tensor]]:
    return [{"pixel_values": torch.randn(n, channels, size, size, generator=generator(n))} for n in (2, 3)]


SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
}


def transformer(name: str, **config: Any) -> nn.Module:
    import transformers

    kind = "Gemma3Text" if name == "Gemma3" else name
    return getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{kind}Config")(**{**SIZES, **config}))


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=3, n_head=4, vocab_size=VOCABULARY, n_positions=64))


def opt() -> nn.Module:
    return transformer("OPT", ffn_dim=48, word_embed_proj_dim=16)


def bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**{key: value for key, value in SIZES.items() if key != "head_dim"}))


class Grouped(nn.Module):
    """Convolutions of every kind, in a model of no known family."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2)
        self.depthwise = nn.Conv2d(6, 6, 3, padding="same", padding_mode="circular", groups=6)
        self.last = nn.Linear(6, 5)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.last(self.depthwise(self.first(pixel_values).relu()).mean((2, 3)))


MODELS: dict[str, tuple[Any, Any]] = {
    "llama": (lambda: transformer("Llama"), text_batches),
    "padded llama": (lambda: transformer("Llama"), padded_batches),
    "qwen3": (lambda: transformer("Qwen3"), text_batches),
    "gemma3": (
        lambda: transformer(
            "Gemma3", sliding_window=4, layer_types=["sliding_attention", "full_attention", "sliding_attention"]
        ),
        text_batches,
    ),
    "gpt2": (gpt2, text_batches),
    "opt": (opt, text_batches),
    "gpt_neox": (lambda: transformer("GPTNeoX"), text_batches),
    "bert": (bert, padded_batches),
    "digits_vit": (lambda: digits_vit(dim=16, depth=2, mlp_dim=24), lambda: image_batches(8, 1)),
    "resnet20": (resnet20, lambda: image_batches(32, 3)),
    "unknown": (Grouped, lambda: image_batches(7, 4)),
}


def make_problem(name: str, **options: Any) -> CompressProblem:
    build, batches = MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = build().eval().requires_grad_(False)
    config = getattr(model, "config", {})
    kind = "causal-lm" if hasattr(model, "lm_head") else "encoder" if name == "bert" else "vision"
    handle: Any = SimpleNamespace(name=name, kind=kind, family=family_of(config), config=config, dtype=torch.float32)
    return CompressProblem(handle, model, batches(), generator(7), **options)


def coarse(layer: LayerProblem) -> Uniform:
    """So coarse that any state which is not that of the compressed prefix shows."""
    return rtn(layer, bits=2)
