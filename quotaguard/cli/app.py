"""The command and its parts."""

from __future__ import annotations

from pathlib import Path

import click

from ..contrib.dashboard.command import command as dashboard
from . import books, buckets, files, machine, trials
from .frame import Commands
from .setup import Setup


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="quotaguard", prog_name="quotaguard")
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="the configuration file (default: as guarded clients find it)",
)
@click.option(
    "--guard",
    "app",
    metavar="MODULE:NAME",
    help="take the guard from Python instead, such as myapp.quotas:guard",
)
@click.pass_context
def cli(context: click.Context, config: Path | None, app: str | None) -> None:
    """Token quotas for LLM clients.

    Exit codes: 0 done; 1 the answer is no, or what was to be read is wrong; 2 the command line or
    the configuration is wrong; 3 the ledger or the journal could not be reached; 70 a fault of
    this program; 130 interrupted.
    """
    context.obj = Setup(config, app, context)


for command in (
    files.init,
    files.check,
    buckets.status,
    buckets.grant,
    buckets.reset,
    books.top,
    books.report,
    trials.simulate,
    trials.stress,
    machine.count,
    machine.doctor,
    machine.completion,
    dashboard,
):
    cli.add_command(command)
