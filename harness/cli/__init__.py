"""The command line. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import click

import harness
from harness.cli.check import check
from harness.cli.cite import cite
from harness.cli.claims import claims
from harness.cli.compare import compare
from harness.cli.doctor import doctor
from harness.cli.kernels import kernels
from harness.cli.listing import list_
from harness.cli.publish import import_, publish
from harness.cli.reference import train_reference
from harness.cli.regressions import regressions
from harness.cli.report import report
from harness.cli.run import run
from harness.cli.show import show
from harness.cli.table import table
from harness.cli.verify import verify
from harness.errors import BadInput, TrialFailed

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class _Commands(click.Group):
    """A group that tells what was wrong in one line on stderr, without a traceback."""

    def main(self, *args: Any, standalone_mode: bool = True, **options: Any) -> Any:
        run = partial(super().main, *args, standalone_mode=False, **options)
        return sys.exit(_status(run)) if standalone_mode else run()


def _status(run: Callable[[], Any]) -> int:
    try:
        status = run()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return BAD_INPUT
    except click.ClickException as error:
        return _say(error.format_message(), BAD_INPUT)
    except BadInput as error:
        return _say(str(error), BAD_INPUT)
    except TrialFailed as error:
        return _say(str(error), FAILED)
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted; what was finished is kept", INTERRUPTED)
    except OSError as error:
        if error.errno not in DISK_TROUBLE:
            raise
        return _say(f"{error.filename or 'a file'}: cannot be written: {error.strerror}", BAD_INPUT)
    return status if isinstance(status, int) else 0


def _say(text: str, status: int) -> int:
    click.echo(f"harness: {' '.join(text.split())}", err=True)
    return status


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(harness.__version__, prog_name="harness")
def main() -> None:
    """Compare compression and training methods for neural networks under one protocol."""


for command in (
    run,
    table,
    compare,
    cite,
    verify,
    claims,
    publish,
    import_,
    report,
    list_,
    show,
    check,
    train_reference,
    regressions,
    doctor,
    kernels,
):
    main.add_command(command)
