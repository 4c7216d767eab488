"""What modules register, kept between processes, so that looking a method up does not import its module, nor torch.

A catalogue is one file in the folder of `harness.cache`, named by a hash of the names, sizes and times of all source
files of the harness and of the packages that register, and of the Python that reads them: any edit makes another one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cache import folder, whole

if TYPE_CHECKING:
    from harness.registry import Entry

SUFFIX = ".catalogue"
KEPT = 4
"""Files that stay in the folder; every edit of a source leaves one behind."""


class Catalogue:
    """The entries of every module that was ever imported from these packages as they are now; some have none."""

    def __init__(self, packages: Sequence[str]):
        self._file = folder() / f"{_state(packages)}{SUFFIX}"
        self.known: dict[str, list[Entry]] = {}
        with contextlib.suppress(Exception):  # a missing or damaged file is made anew
            if _is_ours(self._file):
                self.known = pickle.loads(self._file.read_bytes())

    def add(self, found: dict[str, list[Entry]]) -> None:
        """Keep what some more modules register. A folder that cannot be written is no error: the next process imports
        them again."""
        self.known |= found
        with contextlib.suppress(OSError, pickle.PicklingError, AttributeError, TypeError):
            text, place = pickle.dumps(self.known), self._file.parent
            place.mkdir(parents=True, exist_ok=True)
            with whole(self._file) as partial:
                partial.write_bytes(text)
            files = sorted(place.glob(f"*{SUFFIX}"), key=lambda file: file.stat().st_mtime)
            for old in files[:-KEPT]:
                old.unlink()


def _state(packages: Sequence[str]) -> str:
    digest = hashlib.sha256(f"{sys.version} {sys.prefix} {packages}".encode())
    for top in dict.fromkeys(["harness", *(package.partition(".")[0] for package in packages)]):
        spec = find_spec(top)
        for place in (spec.submodule_search_locations if spec else None) or ():
            for file in sorted(Path(place).rglob("*.py")):
                state = file.stat()
                digest.update(f"{file} {state.st_size} {state.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def _is_ours(file: Path) -> bool:
    """Whether nobody else can have written it: reading a pickle runs what is in it."""
    state = file.stat()
    return not hasattr(os, "getuid") or (state.st_uid == os.getuid() and not state.st_mode & 0o022)
