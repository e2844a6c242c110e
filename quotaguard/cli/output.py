"""Printing: tables for people, JSON for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import click
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from ..wording import aligned

Shown: TypeAlias = "str | Table"


class Table(NamedTuple):
    """Lines of cells, the head first."""

    lines: Sequence[Sequence[str]]
    names: int = 1
    """The columns that are names, not numbers."""
    total: bool = False
    """Whether the last line is a total."""


def total(parts: tuple[list[str], list[list[str]], list[str]], names: int) -> Table:
    """The table of a report: its head, its lines and its total."""
    head, lines, last = parts
    return Table([head, *lines, last], names, total=True)


def as_json(facts: Mapping[str, Any]) -> None:
    """Print facts as JSON."""
    click.echo(json.dumps(facts, indent=2))


def show(parts: Sequence[Shown]) -> None:
    """Print texts and tables."""
    for part in parts:
        if isinstance(part, str):
            click.echo(part)
        else:
            _print(part)


def _print(table: Table) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:  # a file or a pipe: nothing is cut off, and nothing coloured
        click.echo(aligned(table.lines, table.names))
        return
    drawn = RichTable(box=None, pad_edge=False, header_style="bold")
    for at, name in enumerate(table.lines[0]):
        drawn.add_column(Text(name), justify="left" if at < table.names else "right")
    for at, line in enumerate(table.lines[1:], 2):
        last = table.total and at == len(table.lines)
        drawn.add_row(*[Text(cell) for cell in line], style="bold" if last else None)
    console.print(drawn)
