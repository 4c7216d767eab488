"""`harness train-reference`: make a reference model by its recipe."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("train-reference")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write to. [default: suites/reference/NAME]")
@click.option("--fresh", is_flag=True, help="Start anew instead of from the last checkpoint.")
@click.option("--threads", type=click.IntRange(1), default=2, help="The result depends on it. [default: 2]")
def train_reference(name: str, out: Path | None, fresh: bool, threads: int) -> None:
    """Train a reference model by its recipe. A run that was stopped goes on where it was."""
    from harness.train.reference import train_reference as train

    click.echo(train(name, out=out, fresh=fresh, threads=threads))
