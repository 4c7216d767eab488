"""`harness report`: a page that shows everything the ledger has on some suites."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.common import ledger_option, limit_option, model_option, seeds_option

if TYPE_CHECKING:
    from harness.engine.ledger import Ledger
    from harness.engine.suite import Suite

OUTPUT = Path("results/local/report.html")


@click.command(short_help="Write an HTML report of suites.")
@click.argument("suites", nargs=-1, metavar="[SUITE]...")
@click.option("--open", "show", is_flag=True, help="Show the report in a browser.")
@click.option("--output", type=click.Path(path_type=Path), default=OUTPUT, metavar="FILE", show_default=True)
@click.option("--plots", type=click.Path(path_type=Path), metavar="DIR", help="Also save every plot, as SVG and PDF.")
@seeds_option
@limit_option
@model_option
@ledger_option
def report(suites: tuple[str, ...], show: bool, output: Path, plots: Path | None, ledger: str | None,
           **protocol: Any) -> None:  # fmt: skip
    """Write one HTML file with the tables, plots and records of each SUITE (by default, of every suite that the ledger
    has records of). It needs no server and no network."""
    from contextlib import closing

    from harness.engine.ledger import open_ledger
    from harness.engine.suite import load_suite
    from harness.errors import BadInput
    from harness.report.build import build
    from harness.report.gather import gather
    from harness.report.write import plot_files, require_writable, write_whole

    if output.is_dir():
        raise BadInput(f"--output {output}: is a folder; give the path of a file")
    given = [load_suite(name) for name in dict.fromkeys(suites)]
    with closing(open_ledger(ledger, write=False)) as store:
        sections = [gather(suite, store, **protocol) for suite in given or _recorded(store)]
        for folder in (output.parent, *([plots] if plots else [])):
            require_writable(folder)
        made = build(sections, store)
    files = [(plots / name, content) for name, content in plot_files(made.figures)] if plots else []
    for path, content in [*files, (output, made.html.encode())]:
        write_whole(path, content)
    if plots:
        click.echo(f"wrote {len(files)} files to {plots}")
    click.echo(f"wrote {output}")
    if show:
        click.launch(str(output))


def _recorded(store: Ledger) -> list[Suite]:
    """The suites that the ledger has records of, but for those of files elsewhere, which are named on stderr."""
    from harness.engine.suite import load_suite, names
    from harness.errors import BadInput

    recorded = store.suites()
    if not recorded:
        raise BadInput(f"ledger {store.name}: has no records; `harness run SUITE` makes them")
    known = [name for name in names() if name in recorded]
    elsewhere = sorted(set(recorded) - set(known))
    if not known:
        raise BadInput(f"ledger {store.name}: has records of {', '.join(elsewhere)}; give the path of the suite's file")
    if elsewhere:
        click.echo(f"left out: {', '.join(elsewhere)}; give the path of the suite's file", err=True)
    return [load_suite(name) for name in known]
