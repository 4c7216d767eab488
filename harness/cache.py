"""Tensors that take long to make and are the same for every method of a suite: trained bases, experts, zoos, features.

They are kept as safetensors files in $HARNESS_CACHE, or in the user's cache folder, under a hash of what they are made
from. The code that trains, the versions and the threads are part of that hash, so that a file never stands for what
would now come out differently.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

PLACE = "HARNESS_CACHE"
"""The variable that names the folder."""
MAKERS = ("models", "tasks", "train")
"""Packages of the harness whose code decides what a training comes to."""


def cached(key: Mapping[str, Any], make: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that `make` gives for `key`, made once: a later call, in this process or another, reads them.

    `key` is everything the tensors depend on, as JSON holds it: content hashes, recipe, seed. Of processes that ask for
    the same at once, one makes it and the others wait. Raises BadInput where the folder cannot be written.
    """
    from filelock import FileLock

    file = folder() / f"{digest(key)}.safetensors"
    if (found := _read(file)) is not None:
        return found
    with _writable(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file.with_suffix(".lock"))
        lock.acquire()  # given back by the system where the process that holds it is killed
    try:
        if (found := _read(file)) is not None:
            return found
        made = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in make().items()}
        with _writable(file.parent):
            _write(made, file)
        return made
    finally:
        lock.release()


def _read(file: Path) -> dict[str, Tensor] | None:
    """What a file holds; None where there is none, or it is damaged (then it is made again)."""
    from safetensors.torch import load_file

    with suppress(Exception):
        return load_file(file)
    return None


def _write(tensors: Mapping[str, Tensor], file: Path) -> None:
    from safetensors.torch import save_file

    with whole(file) as partial:
        save_file(dict(tensors), partial)


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """An empty file beside this one, which takes its place at the end: others see all that is written to it or nothing.
    Raises OSError where the folder cannot be written."""
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".partial", delete=False) as partial:
        pass
    try:
        yield Path(partial.name)
        os.replace(partial.name, file)
    finally:
        Path(partial.name).unlink(missing_ok=True)


@contextmanager
def _writable(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(f"${PLACE}: {place} cannot be written ({error.strerror}); give another folder") from error


def folder() -> Path:
    """Where the files are."""
    if place := os.environ.get(PLACE):
        return Path(place)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "harness"


def digest(key: Mapping[str, Any]) -> str:
    """The name of what is made from `key` by this code, here."""
    text = json.dumps([key, _made_by()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _made_by() -> list[Any]:
    import torch

    machine = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    return [_code(), torch.__version__, torch.get_num_threads(), *machine]


@functools.cache
def _code() -> str:
    """Hash of the code of the packages that train, without its words."""
    from harness.registry import without_words

    home = Path(__file__).parent
    found = hashlib.sha256()
    for file in sorted(file for package in MAKERS for file in (home / package).rglob("*.py")):
        found.update(ast.dump(without_words(ast.parse(file.read_text(encoding="utf-8")))).encode())
    return found.hexdigest()
