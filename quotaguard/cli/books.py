"""``top`` and ``report``: what the journal adds up to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import click

from ..report import GROUPS, Period, Report, Row
from .frame import Answer, answers
from .output import total
from .setup import Setup

F = TypeVar("F", bound=Callable[..., Any])

_ORDERS: dict[str, Callable[[Row], float]] = {
    "cost": lambda row: row.nano_usd,
    "tokens": lambda row: row.input_tokens + row.output_tokens,
    "calls": lambda row: row.calls,
    "refused": lambda row: row.refused,
}


def span(_: click.Context, __: click.Parameter, value: str) -> Period:
    """A period: a word, or START..END in ISO 8601, either of which may be left out."""
    start, dots, end = value.partition("..")
    if not dots:
        return value
    try:
        since, until = (datetime.fromisoformat(each) if each else None for each in (start, end))
    except ValueError as error:
        raise click.BadParameter(f"{error}; a period is like 2026-01-01..2026-02-01.") from error
    return since, until


def groups(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    """Names of groups, separated by commas."""
    names = tuple(name.strip() for name in value.split(",") if name.strip())
    wrong = [name for name in names if name not in GROUPS]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is none of {', '.join(GROUPS)}.")
    return names


def over(period: str) -> Callable[[F], F]:
    """The options that say over which time."""

    def options(function: F) -> F:
        function = click.option("--tz", default="UTC", show_default=True, help="time zone")(
            function
        )
        return click.option(
            "--period",
            callback=span,
            default=period,
            show_default=True,
            help="day, week, month, all, or START..END",
        )(function)

    return options


@click.command()
@over("month")
@click.option(
    "--by",
    callback=groups,
    default="user,model",
    show_default=True,
    help=f"any of {', '.join(GROUPS)}",
)
@click.pass_obj
@answers
def report(setup: Setup, period: Period, by: tuple[str, ...], tz: str) -> Answer:
    """Calls, tokens, cost, refusals and what limits saved, from the journal."""
    found = setup.books().report(period, by, tz=tz)
    return Answer(found.as_dict(), [total(found.table(), len(by))])


@click.command()
@over("day")
@click.option("--by", type=click.Choice(tuple(_ORDERS)), default="cost", show_default=True)
@click.option(
    "--of", callback=groups, default="user", show_default=True, help="who or what is listed"
)
@click.option("--most", type=click.IntRange(1), default=10, show_default=True, help="how many")
@click.pass_obj
@answers
def top(setup: Setup, period: Period, tz: str, by: str, of: tuple[str, ...], most: int) -> Answer:
    """Who spends most, from the journal."""
    found = setup.books().report(period, of, tz=tz)
    rows = sorted(found.rows.items(), key=lambda item: -_ORDERS[by](item[1]))[:most]
    first = Report(found.start, found.end, found.by, dict(rows), found.total, tz)
    facts = {"order": by} | first.as_dict()
    return Answer(facts, [total(first.table(), len(of))])
