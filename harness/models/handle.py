"""A model that has been found but not yet read: what it is, its hash, and ways to read it whole or block by block."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from harness.models.families import Family, family_of
from harness.models.hashing import files_hash
from harness.models.locate import Place, locate
from harness.models.weights import Weights, weight_files

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from harness.models.streaming import Layout

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
)
_AUTO = {"causal-lm": "AutoModelForCausalLM", "encoder": "AutoModel", "vision": "AutoModelForImageClassification"}


def open_model(name_or_path: str, *, device: str = "cpu", trust_remote_code: bool = False) -> ModelHandle:
    """Find a model by short name (suites/models.yaml), folder, or Hub id (`org/name[@revision]`); no weight is read.

    Python code that comes with a model is run only with `trust_remote_code`. Raises BadInput where the model is not at
    hand, or is of a kind that is not supported.
    """
    return ModelHandle(locate(name_or_path), device=device, trust_remote_code=trust_remote_code)


class ModelHandle:
    """One model on disk.

    `kind` is "causal-lm", "encoder" or "vision". Modules come in eval mode with float32 weights that ask for no
    gradient, whatever `dtype` they are stored in. Raises BadInput for files that are damaged, that could execute code
    when read, or that hold a number that is not finite.
    """

    def __init__(self, place: Place, *, device: str = "cpu", trust_remote_code: bool = False):
        self.name = place.name
        self.folder = place.folder
        self.device = device
        self.kind = _kind(place)
        self._raw = place.config
        self._trust = trust_remote_code
        if "quantization_config" in self._raw:
            raise BadInput(f"model {self.name}: its weights are already quantized; give a checkpoint in full precision")

    def __repr__(self) -> str:
        return f"ModelHandle({self.name!r}, kind={self.kind!r}, family={self.family.name!r})"

    @property
    def family(self) -> Family:
        """The architecture's row of the families table."""
        return family_of(self._raw)

    @functools.cached_property
    def hash(self) -> str:
        """sha256 over the weight files, the config and the tokenizer."""
        return files_hash([*weight_files(self.folder), *self._tokenizer_files], config=self._raw)

    @functools.cached_property
    def tokenizer_hash(self) -> str:
        """sha256 over the tokenizer's files; "" for a model without a tokenizer."""
        return files_hash(self._tokenizer_files) if self._tokenizer_files else ""

    @functools.cached_property
    def weights(self) -> Weights:
        """The checkpoint's tensors: names, shapes and stored types, and the tensors themselves when read."""
        return Weights(weight_files(self.folder))

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that most of the weights are stored in."""
        return self.weights.dtype

    @functools.cached_property
    def config(self) -> Any:
        """The transformers config; a dictionary for our own architectures."""
        if self._ours:
            from harness.models.vision import build

            return build(self._raw).config
        return self._from_folder("AutoConfig")

    @functools.cached_property
    def tokenizer(self) -> Any:
        """The transformers tokenizer. Raises BadInput for a model without one."""
        if not self._tokenizer_files:
            raise BadInput(f"model {self.name} has no tokenizer: {self.folder} has no tokenizer.json and no vocabulary")
        return self._from_folder("AutoTokenizer")

    def preprocess(self, images: Sequence[Any]) -> Tensor:
        """Images as a data set holds them -> the model's `pixel_values`, (N, C, H, W) float32."""
        from harness.models import vision

        if self._ours:
            return vision.preprocess(images, self.config)
        pixels = [vision.pixels(image, channels=3) for image in images]
        return self._image_processor(pixels, return_tensors="pt")["pixel_values"]

    def load(self, *, requires_grad: bool = False) -> nn.Module:
        """The whole model in memory, on the handle's device."""
        from harness.models import streaming

        model = self.skeleton()
        if not self._ours and streaming.missing(model, "", self.weights, self._layout):
            model = self._load_converted()
        else:
            self.materialize("", model)
        return model.to(self.device).eval().requires_grad_(requires_grad)

    def fresh(self) -> nn.Module:
        """The module with first weights drawn from torch's global generator instead of the checkpoint's."""
        import torch

        if self._ours:
            from harness.models.vision import build

            return build(self._raw)
        create = self._auto(_AUTO[self.kind]).from_config
        return self._guard(create, copy.deepcopy(self.config), dtype=torch.float32, trust_remote_code=self._trust)

    def skeleton(self) -> nn.Module:
        """The module with its parameters on the meta device, which takes no memory. Buffers are real."""
        from harness.models import streaming

        model = self._build()
        streaming.release(model)
        pooler = model._modules.get("pooler")
        if pooler is not None and streaming.missing(pooler, "pooler", self.weights, self._layout):
            # Sentence models that average their tokens are often published without the pooler, which nothing uses.
            model._modules["pooler"] = None
        return model.eval().requires_grad_(False)

    def materialize(self, name: str, module: nn.Module) -> nn.Module:
        """Read the weights of one module of a skeleton from disk, in place; `name` is its full name ("": the model)."""
        from harness.models import streaming

        streaming.fill(module, name, self.weights, self._layout, self.device)
        return module

    @staticmethod
    def release(module: nn.Module) -> nn.Module:
        """Give back the memory of a module's weights: they are on the meta device again."""
        from harness.models import streaming

        streaming.release(module)
        return module

    def _build(self) -> nn.Module:
        import torch

        from harness.models.streaming import EmptyOnMeta

        with torch.random.fork_rng(devices=[]), EmptyOnMeta():
            if self._ours:
                from harness.models.vision import build

                return build(self._raw)
            create = self._auto(_AUTO[self.kind]).from_config
            return self._guard(create, copy.deepcopy(self.config), dtype=torch.float32, trust_remote_code=self._trust)

    @functools.cached_property
    def _layout(self) -> Layout:
        from harness.models.streaming import Layout

        return Layout.of(self._build(), self.family.renames)

    def _load_converted(self) -> nn.Module:
        """A checkpoint whose tensors are not the module's own (experts stored one by one): transformers converts it."""
        from harness.models.streaming import refuse_nonfinite

        options = {"dtype": "float32", "weights_only": True, "output_loading_info": True}
        model, report = self._from_folder(_AUTO[self.kind], **options)
        if report["missing_keys"]:
            lacking = sorted(report["missing_keys"])
            raise BadInput(f"{self.folder}: its weights lack {lacking[0]} ({len(lacking)} tensors are missing)")
        for name, tensor in model.named_parameters():
            refuse_nonfinite(tensor, name, self.folder)
        return model

    @property
    def _ours(self) -> bool:
        """Whether harness.models.vision builds the module; transformers builds any other."""
        return "architecture" in self._raw

    @functools.cached_property
    def _tokenizer_files(self) -> list[Path]:
        return [self.folder / name for name in TOKENIZER_FILES if (self.folder / name).is_file()]

    @functools.cached_property
    def _image_processor(self) -> Any:
        return self._from_folder("AutoImageProcessor")

    def _auto(self, name: str) -> Any:
        import transformers

        return getattr(transformers, name)

    def _from_folder(self, auto: str, **options: Any) -> Any:
        create = self._auto(auto).from_pretrained
        return self._guard(create, self.folder, local_files_only=True, trust_remote_code=self._trust, **options)

    def _guard(self, create: Callable, *args: Any, **options: Any) -> Any:
        """Call transformers, whose errors for a folder that it cannot use are of many types and many lines."""
        if "auto_map" in self._raw and not self._trust and not _known(self._raw.get("model_type")):
            raise BadInput(
                f"model {self.name} needs Python code from its folder; it is run only with trust_remote_code"
            )
        try:
            return create(*args, **options)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BadInput(f"model {self.folder}: transformers cannot open it: {reason}") from error


def _known(model_type: Any) -> bool:
    from transformers import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING


def _kind(place: Place) -> str:
    """What a model is for, from the name of its class: it takes no import of torch to tell."""
    if "architecture" in place.config:
        return "vision"
    classes = place.config.get("architectures") or [""]
    name = str(classes[0])
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal-lm"
    if name.endswith("ForImageClassification"):
        return "vision"
    if name.endswith(("Model", "ForMaskedLM", "ForSequenceClassification", "ForPreTraining")):
        return "encoder"
    raise BadInput(
        f"{place.folder / 'config.json'}: architectures {classes} is not supported; it takes a causal language model "
        "(...ForCausalLM), an encoder (...Model, ...ForMaskedLM) or an image classifier (...ForImageClassification)"
    )
