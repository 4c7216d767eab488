"""Where a model's files are: the catalog of short names, folders, and the Hub's cache."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.errors import BadInput, nearest

CATALOG = Path(__file__).parents[2] / "suites" / "models.yaml"
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""What is fetched from the Hub: no pickles, no code."""


@dataclass(frozen=True)
class Place:
    """A folder with a model's files and the config.json it has, or that the catalog gives it."""

    name: str
    folder: Path
    config: dict[str, Any]


@functools.cache
def _catalog() -> dict[str, dict[str, Any]]:
    return yaml.safe_load(CATALOG.read_text())


def names() -> list[str]:
    """The short names of the catalog."""
    return sorted(_catalog())


def describe(name: str) -> dict[str, Any]:
    """The catalog's entry for a short name."""
    if name not in _catalog():
        raise BadInput(f"unknown model {name!r}; {nearest(name, names())}")
    return {"name": name, **_catalog()[name]}


def locate(name: str) -> Place:
    """The folder that a name stands for: a short name of the catalog, a folder, or a Hub id (`org/name[@revision]`).

    Raises BadInput, saying where it was looked for and how to get it, where there is none.
    """
    if name in _catalog():
        return _cataloged(name, _catalog()[name])
    folder = Path(name).expanduser()
    if folder.is_dir():
        return Place(name, folder, _read_config(folder))
    if folder.is_file():
        raise BadInput(f"model {name}: is a file; give the folder that holds config.json and the weights")
    if name.startswith(("/", ".", "~")):
        raise BadInput(f"model {name}: no such folder")
    folder = _hub_folder(name)
    return Place(name, folder, _read_config(folder))


def _cataloged(name: str, entry: dict[str, Any]) -> Place:
    if "path" in entry:
        folder = CATALOG.parent / entry["path"]
        advice = f"make it with: harness train-reference {name}"
    elif "mirror" in entry:
        root = os.environ.get("HARNESS_DATA")
        folder = Path(root or "$HARNESS_DATA") / entry["mirror"]
        advice = "point HARNESS_DATA at a data mirror that has it" if root else "set HARNESS_DATA to a data mirror"
    else:
        package, _, inside = entry["package"].partition("/")
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            folder = _hub_folder(entry["id"], f"{entry['install']}; or: ")
        else:
            folder = Path(found.submodule_search_locations[0]) / inside
        advice = entry["install"]
    if not folder.is_dir():
        raise BadInput(f"model {name} is not at hand: looked in {folder}; {advice}")
    return Place(name, folder, entry.get("config") or _read_config(folder))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise BadInput(f"model {folder}: no config.json in this folder") from None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise BadInput(f"{path}: holds a {type(config).__name__}; it takes a JSON object")
    return config


def _hub_folder(name: str, advice: str = "") -> Path:
    """The snapshot of a Hub id: from the cache, else fetched from the Hub."""
    from huggingface_hub import constants, snapshot_download

    repo, _, revision = name.partition("@")
    options: dict[str, Any] = {"repo_id": repo, "revision": revision or None, "allow_patterns": HUB_FILES}
    try:
        return Path(snapshot_download(**options, local_files_only=True))
    except Exception:  # an id that is malformed or not in the cache: the library has a different error for each
        reason = "HF_HUB_OFFLINE is set"
    if "/" not in repo:
        raise BadInput(f"unknown model {name!r}; {nearest(name, names())} (or give a folder, or a Hub id, org/name)")
    if not constants.HF_HUB_OFFLINE:
        try:
            return Path(snapshot_download(**options))
        except Exception as error:  # no network, no such id, no permission...
            reason = f"the Hub did not give it ({type(error).__name__})"
    raise BadInput(
        f"model {name} is not at hand: it is no short name and no folder, it is not in the Hub's cache "
        f"({constants.HF_HUB_CACHE}), and {reason}; get it with: {advice}hf download {repo}"
    )
