"""A report's files: the page, and every plot for a paper."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import BadInput
from harness.report.figure import Figure
from harness.report.plots.style import HALF, WIDE, styled


def require_writable(folder: Path) -> None:
    """BadInput unless files can be made in the folder (which is made where it can be), before anything is computed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{folder}: cannot be made: {error.strerror}; give a folder that can be written") from None
    if not os.access(folder, os.W_OK):
        raise BadInput(f"{folder}: cannot be written; give a folder that can be")


def plot_files(figures: Sequence[Figure]) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of every plot as SVG, its text as outlines, and as PDF, its fonts embedded; both without a
    date, so that the same records give the same files."""
    for figure in figures:
        if figure.draw is None:
            continue
        with styled(**{"svg.fonttype": "path", "svg.hashsalt": figure.key}):
            drawing = figure.draw(WIDE if figure.wide else HALF)
            for form, dates in (("svg", {"Date": None}), ("pdf", {"CreationDate": None, "ModDate": None})):
                buffer = io.BytesIO()
                drawing.savefig(buffer, format=form, bbox_inches="tight", metadata={"Title": figure.title, **dates})
                yield f"{figure.key}.{form}", buffer.getvalue()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises BadInput where it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            temporary.write_bytes(content)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error
