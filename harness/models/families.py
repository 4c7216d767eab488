"""What differs between architectures, as a table of data: one row each, selected by `model_type`.

Paths in a row are relative to the base model (`model.` of a Llama, nothing for a bare encoder), paths in `groups` and
`folds` to a block. A layer that a model does not have is left out, so one row serves models with and without it. An
outside package adds a row with `register_family`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

Names = tuple[str, ...]


@dataclass(frozen=True)
class Fold:
    """Channels that can be rescaled without changing the block: divide `source`, multiply the columns of `layers`.

    `source` is a norm or a layer whose outputs reach `layers` through nothing but sums over tokens, products with other
    activations and positively homogeneous functions; nobody else reads them. `output` is the module whose output is
    compared when a scale is chosen. `one_plus`: the norm multiplies by 1 + weight. `requires`: values of the model's
    config without which the fold would change the function.
    """

    source: str
    layers: Names
    output: str
    one_plus: bool = False
    requires: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """One architecture.

    `blocks`: paths of the blocks in order of execution; a ModuleList or Sequential stands for its children. `groups`:
    the layers of a block in order of execution, those with a common input together. `before`, `after`: what surrounds
    the blocks, `head` what makes the logits (its path from the model itself). `enter`: the model's method that turns
    the previous block's output into this block's input, where they differ. `renames`: (prefix in the model, prefix in
    published checkpoints).
    """

    name: str
    model_types: Names
    blocks: Names
    groups: tuple[Names, ...]
    folds: tuple[Fold, ...] = ()
    before: Names = ()
    after: Names = ()
    head: str = ""
    enter: Mapping[str, str] = field(default_factory=dict)
    renames: tuple[tuple[str, str], ...] = ()

    def prefix(self, model: nn.Module) -> str:
        """Path of the base model inside `model`, with its dot: "model." or ""."""
        base = getattr(model, "base_model_prefix", "")
        return f"{base}." if base and hasattr(model, base) else ""

    def block_names(self, model: nn.Module) -> list[str]:
        """Full names of the blocks, in order of execution; [""] (the model itself) where no list of blocks is known."""
        from torch import nn

        paths = self._present(model, self.blocks) if self.blocks else _block_list(model)
        names = []
        for path in paths:
            module = model.get_submodule(path)
            inside = isinstance(module, nn.ModuleList | nn.Sequential)
            names += [f"{path}.{child}" for child, _ in module.named_children()] if inside else [path]
        return names or [""]

    def layer_groups(self, block: nn.Module) -> list[list[str]]:
        """The block's linear layers and convolutions, by name inside the block; those that share their input together.

        A layer that the row does not mention is a group of its own, at the end. The name of a block that is itself a
        layer is "".
        """
        layers = layer_names(block)
        known = [[name for name in group if name in layers] for group in self.groups]
        listed = {name for group in known for name in group}
        return [group for group in known if group] + [[name] for name in layers if name not in listed]

    def fold_pairs(self, block: nn.Module, config: Any = None) -> list[Fold]:
        """The folds that hold for this block: its modules exist, the config allows them, and the widths agree.

        With grouped queries the values are narrower than the output projection's input, which rules out v -> o.
        """
        return [fold for fold in self.folds if _holds(fold, block, config)]

    def before_names(self, model: nn.Module) -> list[str]:
        """Full names of the modules that run before the blocks (all that lie outside them, in an unknown model)."""
        return self._present(model, self.before) if self.blocks else _outside(model, self.block_names(model))

    def after_names(self, model: nn.Module) -> list[str]:
        """Full names of the modules that run after the blocks: the final norm and the head."""
        head = (self.head,) if self.head and _module(model, self.head) is not None else ()
        return [*self._present(model, self.after), *head]

    def _present(self, model: nn.Module, paths: Names) -> list[str]:
        prefix = self.prefix(model)
        return [prefix + path for path in paths if _module(model, prefix + path) is not None]


def layer_names(module: nn.Module) -> list[str]:
    """Names of the linear layers and convolutions inside a module (its own is ""), in order of registration."""
    return [name for name, child in module.named_modules() if is_layer(child)]


def is_layer(module: nn.Module) -> bool:
    """Whether a module has one weight matrix that the compress track can replace."""
    from torch import nn

    return isinstance(module, nn.Linear | nn.Conv2d) or type(module).__name__ == "Conv1D"


def _module(root: nn.Module, path: str) -> nn.Module | None:
    try:
        return root.get_submodule(path)
    except AttributeError:
        return None


def _widths(layer: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a layer, or (channels, channels) of a norm."""
    shape = tuple(layer.weight.shape)  # type: ignore[arg-type]
    if type(layer).__name__ == "Conv1D":
        return shape[0], shape[1]
    return shape[-1], shape[0]


def _holds(fold: Fold, block: nn.Module, config: Any) -> bool:
    source = _module(block, fold.source)
    layers = [_module(block, name) for name in fold.layers]
    if source is None or any(layer is None for layer in layers):
        return False
    if any(getattr(config, key, None) != value for key, value in fold.requires.items()):
        return False
    return all(_widths(layer)[0] == _widths(source)[1] for layer in layers if layer is not None)


def _block_list(model: nn.Module) -> list[str]:
    """The largest list of like modules in a Hugging Face model, which calls each on the output of the one before it.

    Nothing is known of the order of calls in any other module, so it is one block.
    """
    from torch import nn

    if not getattr(model, "base_model_prefix", ""):
        return []
    lists = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len({type(child) for child in module}) == 1
    }
    return [max(lists, key=lambda name: lists[name])] if lists else []


def _outside(model: nn.Module, blocks: list[str]) -> list[str]:
    """Names of the modules with tensors of their own that are not inside a block."""
    own = [name for name, module in model.named_modules() if module._parameters or module._buffers]
    return [name for name in own if not any(f"{name}.".startswith(f"{block}.") or not block for block in blocks)]


def _decoder_folds(mlp_norm: str, *, one_plus: bool = False) -> tuple[Fold, ...]:
    return (
        Fold("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), "self_attn", one_plus),
        Fold("self_attn.v_proj", ("self_attn.o_proj",), "self_attn.o_proj"),
        Fold(mlp_norm, ("mlp.gate_proj", "mlp.up_proj"), "mlp", one_plus),
        Fold("mlp.up_proj", ("mlp.down_proj",), "mlp.down_proj"),
    )


_DECODER_GROUPS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj", "mlp.up_proj"),
    ("mlp.down_proj",),
)
_DECODER: dict[str, Any] = {
    "blocks": ("layers",),
    "groups": _DECODER_GROUPS,
    "before": ("embed_tokens", "rotary_emb"),
    "after": ("norm",),
    "head": "lm_head",
}
_PRE_NORM = {"do_layer_norm_before": True}

GENERIC = Family("generic", (), blocks=(), groups=())
"""Any other module: every layer a group of its own, in order of registration; no folds."""

_ROWS = [
    Family(
        "llama",
        ("llama", "mistral", "qwen2", "qwen3"),
        folds=_decoder_folds("post_attention_layernorm"),
        **_DECODER,
    ),
    Family("gemma", ("gemma",), folds=_decoder_folds("post_attention_layernorm", one_plus=True), **_DECODER),
    Family(
        "gemma2",
        ("gemma2", "gemma3_text"),
        folds=_decoder_folds("pre_feedforward_layernorm", one_plus=True),
        **_DECODER,
    ),
    Family(
        "opt",
        ("opt",),
        blocks=("decoder.layers",),
        groups=(
            ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            ("self_attn.out_proj",),
            ("fc1",),
            ("fc2",),
        ),
        folds=(
            Fold(
                "self_attn_layer_norm",
                ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
                "self_attn",
                requires=_PRE_NORM,
            ),
            Fold("self_attn.v_proj", ("self_attn.out_proj",), "self_attn.out_proj"),
            Fold("final_layer_norm", ("fc1",), "fc1", requires=_PRE_NORM),
            Fold("fc1", ("fc2",), "fc2", requires={"activation_function": "relu"}),
        ),
        before=("decoder.embed_tokens", "decoder.embed_positions", "decoder.project_in"),
        after=("decoder.final_layer_norm", "decoder.project_out"),
        head="lm_head",
    ),
    Family(
        "gpt2",
        ("gpt2",),
        blocks=("h",),
        groups=(("attn.c_attn",), ("attn.c_proj",), ("mlp.c_fc",), ("mlp.c_proj",)),
        folds=(Fold("ln_1", ("attn.c_attn",), "attn"), Fold("ln_2", ("mlp.c_fc",), "mlp")),
        before=("wte", "wpe"),
        after=("ln_f",),
        head="lm_head",
    ),
    Family(
        "gpt_neox",
        ("gpt_neox",),
        blocks=("layers",),
        groups=(("attention.query_key_value",), ("attention.dense",), ("mlp.dense_h_to_4h",), ("mlp.dense_4h_to_h",)),
        folds=(
            Fold("input_layernorm", ("attention.query_key_value",), "attention"),
            Fold("post_attention_layernorm", ("mlp.dense_h_to_4h",), "mlp"),
        ),
        before=("embed_in", "rotary_emb"),
        after=("final_layer_norm",),
        head="lm_head",
        renames=(("lm_head.", "embed_out."),),
    ),
    # A post-norm encoder adds its norms' outputs to the residual stream as well, so they cannot be folded.
    Family(
        "bert",
        ("bert", "roberta", "xlm-roberta"),
        blocks=("encoder.layer",),
        groups=(
            ("attention.self.query", "attention.self.key", "attention.self.value"),
            ("attention.output.dense",),
            ("intermediate.dense",),
            ("output.dense",),
        ),
        folds=(Fold("attention.self.value", ("attention.output.dense",), "attention.output.dense"),),
        before=("embeddings",),
        after=("pooler",),
    ),
    Family(
        "digits_vit",
        ("digits_vit",),
        blocks=("blocks",),
        groups=(("attn.q", "attn.k", "attn.v"), ("attn.o",), ("mlp.fc1",), ("mlp.fc2",)),
        folds=(
            Fold("norm1", ("attn.q", "attn.k", "attn.v"), "attn"),
            Fold("attn.v", ("attn.o",), "attn.o"),
            Fold("norm2", ("mlp.fc1",), "mlp"),
        ),
        before=("embed", "position"),
        after=("norm",),
        head="head",
    ),
    Family(
        "resnet20",
        ("resnet20",),
        blocks=("conv1", "layer1", "layer2", "layer3", "linear"),
        groups=(("conv1",), ("conv2",)),
        before=("bn1",),
        enter={"layer1.0": "stem", "linear": "pool"},
    ),
]
_families: dict[str, Family] = {}


def register_family(family: Family) -> Family:
    """Add a row to the table, or replace the rows of its model types."""
    _families.update(dict.fromkeys(family.model_types, family))
    return family


def family_of(config: Any) -> Family:
    """The row for a config (a Hugging Face config or a dictionary with `model_type` or `architecture`)."""
    get = config.get if isinstance(config, Mapping) else lambda key: getattr(config, key, None)
    return _families.get(str(get("architecture") or get("model_type")), GENERIC)


def families() -> Iterable[Family]:
    """Every row once, in order of registration."""
    return dict.fromkeys([*_families.values(), GENERIC])


for _row in _ROWS:
    register_family(_row)
