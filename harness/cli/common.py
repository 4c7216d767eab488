"""What several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

Decorator = Callable[[Any], Any]

json_option: Decorator = click.option("--json", "as_json", is_flag=True, help="JSON on stdout, and nothing else there.")
ledger_option: Decorator = click.option(
    "--ledger",
    metavar="URL",
    help="Path of an SQLite file, or a database URL. [default: $HARNESS_LEDGER, else results/local/ledger.db]",
)
seeds_option: Decorator = click.option("--seeds", type=int, metavar="N", help="Seeds 0 to N-1 in place of the suite's.")
limit_option: Decorator = click.option("--limit", type=int, metavar="N", help="Only the first N items of every metric.")
model_option: Decorator = click.option("--model", metavar="ID", help="A model in place of every model of the suite.")


def emit(value: Any) -> None:
    """One JSON value, on a line of its own."""
    click.echo(json.dumps(value, default=str))


def console() -> Console:
    """Standard output with colours and boxes on a terminal; plain and wide enough for any table elsewhere."""
    import sys

    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200, no_color=True)
