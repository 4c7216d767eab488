"""Strict YAML: plain mappings, lists and scalars in a small file, with the line of every value for error messages."""

from __future__ import annotations

import os
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.errors import BadInput

MAX_BYTES = 256_000
MAX_DEPTH = 20

Keys = tuple[Hashable, ...]
"""The way to a value inside a document: names of fields and positions in lists."""


@dataclass(frozen=True)
class Document:
    """What a file says, and where it says it."""

    path: Path
    data: Any
    lines: dict[Keys, int]

    def where(self, *keys: Hashable) -> str:
        """`file:line` of a value, or of the nearest one around it that the file holds."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return f"{shown(self.path)}:{self.lines.get(keys, 1)}"


def shown(path: Path) -> str:
    """The path as a person would write it from the current folder."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def read_yaml(path: Path) -> Document:
    """Read one document. Raises BadInput, with file and line, for anything but plain YAML: no tabs, duplicate keys,
    anchors, tags, several documents, deep nesting or files above `MAX_BYTES`."""
    text = _text(path)
    tab = text.find("\t")
    if tab >= 0:
        raise BadInput(f"{shown(path)}:{text.count(chr(10), 0, tab) + 1}: a tab character; indent with spaces")
    try:
        _refuse_tricks(text, path)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[Keys, int] = {}
        return Document(path, None if node is None else _value(node, path, (), lines), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        reason = " ".join(filter(None, (error.context, error.problem)))
        raise BadInput(f"{shown(path)}:{line}: is not valid YAML: {reason}") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{shown(path)}:1: is not valid YAML: {error}") from None


def _text(path: Path) -> str:
    if path.is_dir():
        raise BadInput(f"{shown(path)}: is a folder; give a YAML file")
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise BadInput(f"{shown(path)}: no such file") from None
    except OSError as error:
        raise BadInput(f"{shown(path)}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise BadInput(f"{shown(path)}: is larger than {MAX_BYTES} bytes, too large for a YAML file of this kind")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BadInput(f"{shown(path)}: is not UTF-8 text; give a YAML file") from None


def _refuse_tricks(text: str, path: Path) -> None:
    """Walk the events (no recursion, nothing expanded) and refuse what could blow up when it is composed."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        where = f"{shown(path)}:{event.start_mark.line + 1 if event.start_mark else 1}"
        if getattr(event, "anchor", None):
            raise BadInput(f"{where}: anchors and aliases are not accepted; write the value out")
        if tag := getattr(event, "tag", None):
            raise BadInput(f"{where}: the tag {tag} is not accepted; write the plain value")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise BadInput(f"{where}: nested more than {MAX_DEPTH} levels deep")


def _value(node: yaml.Node, path: Path, keys: Keys, lines: dict[Keys, int]) -> Any:
    lines.setdefault(keys, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, path, (*keys, position), lines) for position, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        return _scalar(node, path)
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        where = f"{shown(path)}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            raise BadInput(f"{where}: a field's name is a word")
        name = key_node.value
        if name in result:
            raise BadInput(f"{where}: {name} is given twice")
        lines[*keys, name] = key_node.start_mark.line + 1
        result[name] = _value(value_node, path, (*keys, name), lines)
    return result


def _scalar(node: yaml.Node, path: Path) -> Any:
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except ValueError as error:
        raise BadInput(f"{shown(path)}:{node.start_mark.line + 1}: cannot be read: {error}") from None
