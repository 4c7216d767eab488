"""Shared fixtures."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# Tests never reach a network: what is not on disk is not there.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Nor do they read what an earlier run left, or leave anything behind.
CACHE = tempfile.TemporaryDirectory(prefix="harness-cache-")
os.environ["HARNESS_CACHE"] = CACHE.name


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The local data mirror; tests that need it skip without it."""
    where = os.environ.get("HARNESS_DATA")
    if not where or not Path(where).is_dir():
        pytest.skip("needs the data mirror: set HARNESS_DATA to its folder")
    return Path(where)
