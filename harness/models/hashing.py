"""Content hashes of files that may be large: computed once per file, size and time of change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

LARGE = 1 << 24
"""Bytes from which a file's hash is remembered on disk."""


def file_hash(path: Path) -> str:
    """sha256 of a file's content, in hex.

    A large file of the Hub's cache is a link to a blob that is named by its sha256; the hash of any other large file is
    remembered in ~/.cache/harness/hashes, by path, size and modification time.
    """
    target = path.resolve()
    if target.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", target.name):
        return target.name
    stat = target.stat()
    if stat.st_size < LARGE:
        return hashlib.sha256(target.read_bytes()).hexdigest()
    identity = f"{target}|{stat.st_size}|{stat.st_mtime_ns}"
    note = Path.home() / ".cache" / "harness" / "hashes" / hashlib.sha256(identity.encode()).hexdigest()
    with contextlib.suppress(OSError):
        return note.read_text()
    with target.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # a home that cannot be written to costs time, nothing else
        note.parent.mkdir(parents=True, exist_ok=True)
        draft = note.with_suffix(f".{os.getpid()}")
        draft.write_text(digest)
        draft.replace(note)
    return digest


def files_hash(files: Iterable[Path], **extra: object) -> str:
    """One sha256 over the names and contents of files, and over `extra` as JSON."""
    lines = [f"{path.name} {file_hash(path)}" for path in sorted(files)]
    return hashlib.sha256("\n".join([*lines, json.dumps(extra, sort_keys=True)]).encode()).hexdigest()
