"""Tables: one model of a table, built from a suite and its records, and one writer for each format."""

from harness.tables import html, latex  # noqa: F401  (they register their formats)
from harness.tables.model import Column, Quantity, Row, Table
from harness.tables.writers import FORMATS, render, write_files

__all__ = ["FORMATS", "Column", "Quantity", "Row", "Table", "render", "write_files"]
