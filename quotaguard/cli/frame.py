"""What all commands have in common: ``--json``, exit codes, and errors of one line."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import click

from ..errors import BackendError, ConfigurationError, QuotaguardError
from . import output

NO, WRONG, AWAY, FAULT, STOPPED = 1, 2, 3, 70, 130
"""Exit codes. 70 is EX_SOFTWARE of sysexits.h, 130 what shells say of SIGINT."""


class Answer(NamedTuple):
    """What a command found out."""

    facts: Mapping[str, Any]
    """As JSON values; the keys are documented and stay."""
    shown: Sequence[output.Shown]
    """For people."""
    code: int = 0
    problem: str = ""
    """What is wrong, for stderr."""


def answers(function: Callable[..., Answer]) -> Callable[..., None]:
    """A command that prints its answer, for people or as JSON."""

    @click.option("--json", "as_json", is_flag=True, help="print JSON")
    @functools.wraps(function)
    def run(*args: Any, as_json: bool, **options: Any) -> None:
        answer = function(*args, **options)
        if as_json:
            output.as_json(answer.facts)
        else:
            output.show(answer.shown)
        if answer.problem:
            _say(answer.problem)
        click.get_current_context().exit(answer.code)

    return run


class Commands(click.Group):
    """A group whose errors are a line on stderr and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run it; by itself it exits, never with a traceback."""
        own = args, prog_name or "quotaguard", complete_var
        if not standalone_mode:
            return super().main(*own, standalone_mode=False, **extra)
        code: Any = None
        try:
            code = super().main(*own, standalone_mode=False, **extra)
        except getattr(click.exceptions, "NoArgsIsHelpError", ()) as help_:
            help_.show()
            sys.exit(WRONG)
        except (click.Abort, KeyboardInterrupt):
            _fail("stopped", STOPPED)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "quotaguard"
            _fail(f"{error.format_message()} See '{path} --help'.", WRONG)
        except click.ClickException as error:
            _fail(error.format_message(), error.exit_code)
        except (ConfigurationError, ImportError) as error:
            _fail(str(error), WRONG)
        except BackendError as error:
            _fail(str(error), AWAY)
        except QuotaguardError as error:
            _fail(str(error), NO)
        except BrokenPipeError:  # whoever read has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(NO)
        except Exception as error:
            if os.environ.get("QUOTAGUARD_TRACEBACK"):
                raise
            _fail(
                f"a fault of quotaguard: {type(error).__name__}: {error} "
                "(QUOTAGUARD_TRACEBACK=1 shows where)",
                FAULT,
            )
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    _say(message)
    sys.exit(code)


def _say(message: str) -> None:
    click.echo(f"quotaguard: {' '.join(message.split())}", err=True)
