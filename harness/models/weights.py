"""The stored tensors of a checkpoint, read one at a time; safetensors shards stay on disk until then."""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PICKLES = (".bin", ".pt", ".pth", ".th")
NOT_WEIGHTS = {"training_args.bin", "optimizer.pt", "scheduler.pt", "optimizer.bin", "scheduler.bin"}
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Stored:
    """One tensor of a checkpoint: its file, its name there, its shape and its type as safetensors spells it."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights: the shards of an index, or one file; safetensors before pickles.

    Raises BadInput where there are none, where it is unclear which, or where a shard is missing.
    """
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / index).is_file():
            return _shards(folder / index)
    for standard in ("model.safetensors", "pytorch_model.bin"):
        if (folder / standard).is_file():
            return [folder / standard]
    for endings in ((".safetensors",), PICKLES):
        files = sorted(f for f in folder.iterdir() if f.suffix in endings and f.name not in NOT_WEIGHTS)
        if len(files) > 1:
            raise BadInput(
                f"model {folder}: {len(files)} weight files and no index ({files[0].name}, ...); it takes one"
            )
        if files:
            return files
    raise BadInput(f"model {folder}: no weights in this folder; it takes safetensors, or a PyTorch pickle")


def _shards(index: Path) -> list[Path]:
    try:
        names = set(json.loads(index.read_text())["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"{index}: cannot be read as an index of shards: {type(error).__name__}: {error}") from error
    for name in sorted(names):
        if Path(name).name != name or not (index.parent / name).is_file():
            raise BadInput(f"{index}: names the shard {name!r}, which is not in its folder")
    return [index.parent / name for name in sorted(names)]


class Weights:
    """The tensors of several files under one set of names."""

    def __init__(self, files: Iterable[Path]):
        self.files = list(files)
        self.stored = {name: tensor for file in self.files for name, tensor in _contents(file).items()}
        # torch.nn.DataParallel puts its attribute's name before every tensor's.
        if self.stored and all(name.startswith("module.") for name in self.stored):
            self.stored = {name.removeprefix("module."): tensor for name, tensor in self.stored.items()}

    def __contains__(self, name: str) -> bool:
        return name in self.stored

    def __getitem__(self, name: str) -> Stored:
        return self.stored[name]

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """The named tensors in their stored type; each file is opened once, and closed before the next one."""
        by_file: dict[Path, list[str]] = {}
        for name in names:
            by_file.setdefault(self.stored[name].file, []).append(name)
        for file, wanted in by_file.items():
            yield from _read(file, {self.stored[name].key: name for name in wanted})

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that most numbers are stored in."""
        import torch

        counts: Counter[str] = Counter()
        for tensor in self.stored.values():
            if tensor.dtype in _DTYPES:
                counts[tensor.dtype] += math.prod(tensor.shape)
        return getattr(torch, _DTYPES[counts.most_common(1)[0][0]]) if counts else torch.float32


def _contents(file: Path) -> dict[str, Stored]:
    if file.suffix != ".safetensors":
        spelled = {f"torch.{name}": short for short, name in _DTYPES.items()}
        tensors = _unpickle(file)
        return {k: Stored(file, k, tuple(t.shape), spelled.get(str(t.dtype), str(t.dtype))) for k, t in tensors.items()}
    with _open(file, "np") as reader:
        slices = {key: reader.get_slice(key) for key in reader.keys()}  # noqa: SIM118 - not a mapping
        return {key: Stored(file, key, tuple(s.get_shape()), s.get_dtype()) for key, s in slices.items()}


def _read(file: Path, keys: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
    if file.suffix != ".safetensors":
        tensors = _unpickle(file)
        yield from ((name, tensors[key]) for key, name in keys.items())
        return
    with _open(file, "pt") as reader:
        for key, name in keys.items():
            yield name, reader.get_tensor(key)


def _open(file: Path, framework: str) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework=framework)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{file}: cannot be read as safetensors (truncated or corrupt?): {error}") from error


def _unpickle(file: Path) -> dict[str, Tensor]:
    """The tensors of a pickled checkpoint; nothing in it is executed."""
    import torch

    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # unpickling a damaged or hostile file can raise nearly anything
        raise BadInput(f"{file}: {_reason(error)}") from error
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    tensors = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise BadInput(f"{file}: holds a {type(content).__name__} without tensors; it takes a dictionary of tensors")
    return tensors


def _reason(error: Exception) -> str:
    """Torch's advice for a file that it refuses is a page long and ends in how to read it all the same."""
    code = re.search(r"GLOBAL:? (?:GLOBAL )?([\w.]+)", str(error), re.IGNORECASE)
    if code:
        return f"refused: reading it would run {code[1]}; it takes tensors only (convert it to safetensors)"
    return f"cannot be read as a PyTorch checkpoint (truncated or corrupt?): {type(error).__name__}"
