"""`harness check`: is a method within the contract?"""

from __future__ import annotations

import click

from harness.cli.common import emit, json_option


@click.command(short_help="Check a method against the contract.")
@click.argument("target", metavar="PATH_OR_NAME")
@json_option
def check(target: str, as_json: bool) -> int:
    """Run the contract's checks on a method, by name or by the path of a Python file.

    Exit status 0 if every check holds, 1 otherwise.
    """
    from harness.check import check as run_checks

    report = run_checks(target)
    for row in report.rows:
        if as_json:
            emit({"method": row.method, "check": row.check, "ok": row.ok, "detail": row.detail})
        else:
            verdict = "ok  " if row.ok else click.style("FAIL", fg="red")
            click.echo(f"{verdict}  {row.method}: {row.check}: {row.detail}".removesuffix(": "))
    if not as_json:
        held = sum(row.ok for row in report.rows)
        click.echo(f"{held} of {len(report.rows)} checks hold")
    return 0 if report.ok else 1
