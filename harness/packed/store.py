"""Compressed models on disk: safetensors files whose header says what the tensors are.

A packed weight's tensors are stored as "<module>.<part>", other tensors under their own names. A file is complete or
it is not there: it is written beside its place and renamed. A folder of such files, one for each block of a model that
is larger than memory, is complete when its index is there.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.errors import BadInput
from harness.packed.base import PackedWeight, unpack

if TYPE_CHECKING:
    from harness.solution import Solution

HEADER = "harness"
VERSION = 1
INDEX = "model.safetensors.index.json"
META_CHARACTERS = 256
"""Longest description of a packed weight in the header, for each of its tensors."""


def save(
    path: str | os.PathLike,
    solution: Solution,
    *,
    model_tensors: Mapping[str, Tensor] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a solution to one file, all of it or nothing.

    `model_tensors` are the model's other tensors, for a file that is complete by itself; `metadata` is any JSON.
    Raises BadInput where the file cannot be written.
    """
    path = Path(path)
    tensors = {name: t for name, t in (model_tensors or {}).items() if name not in solution.changed}
    for name in solution.packed:
        tensors.pop(f"{name}.weight", None)
    tied = _tied(tensors)
    own = _named_tensors(solution)
    if taken := own.keys() & tensors.keys():
        raise ValueError(f"two tensors are named {min(taken)}")
    header = {
        "version": VERSION,
        "packed": {name: _description(name, weight) for name, weight in solution.packed.items()},
        "changed": sorted(solution.changed),
        "tied": tied,
        "log": solution.log,
        "metadata": dict(metadata or {}),
    }
    stored = own | {name: tensor for name, tensor in tensors.items() if name not in tied}
    with _written(path) as temporary:
        # One key, because safetensors writes several in an order that differs from run to run.
        text = json.dumps(header, sort_keys=True, default=float)
        save_file(_separate(stored), temporary, metadata={HEADER: text})


def load(path: str | os.PathLike, *, device: str = "cpu") -> Solution:
    """Read what `save` or `ShardWriter` wrote. Raises BadInput for any other file and for a damaged one."""
    from harness.solution import Solution

    path = Path(path)
    solution = Solution(packed={})
    for file in _shards(path) if path.is_dir() else [path]:
        header, tensors = _read(file, device)
        try:
            for name, entry in header["packed"].items():
                parts = {part: tensors[f"{name}.{part}"] for part in entry["parts"]}
                solution.packed[name] = unpack(entry["kind"], parts, entry["meta"])
            solution.changed |= {name: tensors[name] for name in header["changed"]}
            solution.log |= header["log"]
        except (KeyError, TypeError, AttributeError, BadInput) as error:
            raise BadInput(f"{file}: damaged: {_reason(error)}") from error
    return solution


def load_model_tensors(path: str | os.PathLike, *, device: str = "cpu") -> dict[str, Tensor]:
    """The `model_tensors` that were given to `save`, without those that the packed and changed ones replace."""
    header, tensors = _read(Path(path), device)
    own = {f"{name}.{part}" for name, entry in header["packed"].items() for part in entry["parts"]}
    others = {name: tensor for name, tensor in tensors.items() if name not in own | set(header["changed"])}
    return others | {name: others[first] for name, first in header["tied"].items()}


def load_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """The metadata that was given to `save`; no tensor is read."""
    with _opened(Path(path), "cpu") as file:
        return _header(Path(path), file)["metadata"]


class ShardWriter:
    """Writes a compressed model block by block into a folder, so that only one block is in memory.

    Use it as a context manager: the index that makes the folder readable is written at the end, and only if nothing
    was raised. Raises BadInput for a folder that already holds a model, or that cannot be written.
    """

    def __init__(self, folder: str | os.PathLike, *, metadata: Mapping[str, Any] | None = None):
        self.folder = Path(folder)
        self.metadata = dict(metadata or {})
        self.files: dict[str, str] = {}
        self.count = self.bytes = 0
        if (self.folder / INDEX).exists():
            raise BadInput(f"{self.folder}: holds a model already ({INDEX}); give a new or empty folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{self.folder}: cannot be written: {_reason(error)}") from error

    def write(self, solution: Solution) -> Path:
        """Write one block as the next shard, and give its path."""
        tensors = _named_tensors(solution)
        if twice := tensors.keys() & self.files.keys():
            raise ValueError(f"{min(twice)} was written in an earlier shard")
        self.count += 1
        path = self.folder / f"model-{self.count:05d}.safetensors"
        save(path, solution, metadata=self.metadata)
        self.files |= dict.fromkeys(tensors, path.name)
        self.bytes += sum(tensor.nbytes for tensor in tensors.values())
        return path

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            index = {"metadata": {"total_size": self.bytes, **self.metadata}, "weight_map": self.files}
            with _written(self.folder / INDEX) as temporary:
                temporary.write_text(json.dumps(index, indent=1))


def _named_tensors(solution: Solution) -> dict[str, Tensor]:
    parts = {f"{name}.{part}": t for name, weight in solution.packed.items() for part, t in weight.tensors().items()}
    if taken := parts.keys() & solution.changed.keys():
        raise ValueError(f"two tensors are named {min(taken)}")
    return parts | solution.changed


def _description(name: str, weight: PackedWeight) -> dict[str, Any]:
    """What the header says of a packed weight. It describes, and must not hold what belongs into counted tensors."""
    parts = sorted(weight.tensors())
    meta = weight.meta()
    if len(json.dumps(meta)) > META_CHARACTERS * (1 + len(parts)):
        raise ValueError(f"{name}: meta of kind {weight.kind} is longer than a description; store data in tensors")
    return {"kind": weight.kind, "meta": meta, "parts": parts}


def _tied(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """The second names of tied tensors, and the first."""
    first: dict[int, str] = {}
    names = {name: first.setdefault(id(tensor), name) for name, tensor in tensors.items()}
    return {name: other for name, other in names.items() if name != other}


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors that share no memory, as safetensors wants them."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        where = tensor.untyped_storage().data_ptr()
        separate[name] = tensor.clone() if where in seen else tensor
        seen.add(where)
    return separate


@contextlib.contextmanager
def _written(path: Path) -> Iterator[Path]:
    """A path to write to; its file replaces `path` when the block ends well."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path}: cannot be written: {_reason(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _opened(path: Path, device: str) -> Iterator[Any]:
    if not path.is_file():
        raise BadInput(f"{path}: no such file; give a file or a folder of a saved compressed model")
    try:
        with safe_open(path, "pt", device=device) as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path}: not a readable safetensors file: {_reason(error)}") from error


def _header(path: Path, file: Any) -> dict[str, Any]:
    text = (file.metadata() or {}).get(HEADER)
    if text is None:
        raise BadInput(f"{path}: not a compressed model: its header has no entry {HEADER!r}")
    try:
        header = json.loads(text)
        version = header["version"]
        missing = {"packed", "changed", "tied", "log", "metadata"} - header.keys()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{path}: damaged: its header is {text[:40]!r}") from error
    if version != VERSION or missing:
        raise BadInput(f"{path}: header is of version {version}, which this program cannot read; it reads {VERSION}")
    return header


def _read(path: Path, device: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with _opened(path, device) as file:
        return _header(path, file), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _shards(folder: Path) -> list[Path]:
    index = folder / INDEX
    if not index.is_file():
        raise BadInput(f"{folder}: has no {INDEX}: not a compressed model, or one that was not written to its end")
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        return [folder / Path(name).name for name in names]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadInput(f"{index}: damaged: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)
