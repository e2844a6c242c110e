"""Numbers, names and times as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal


def amount(value: float) -> str:
    """A count for people: whole numbers plain, fractions with two decimals, or six below one."""
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.6f}".rstrip("0").rstrip(".")


def seconds(value: float) -> str:
    """A duration for people, rounded up so that coming back then is never too early."""
    if value < 10:
        return f"{math.ceil(value * 10) / 10:g} s"
    if value < 120:
        return f"{math.ceil(value)} s"
    minutes = math.ceil(value / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{math.ceil(minutes / 60)} h"


def money(dollars: Decimal) -> str:
    """Dollars for people: cents, or for less than a dollar four digits of whatever it is."""
    digits = 2 if dollars == 0 else max(2, 3 - dollars.adjusted())
    whole, _, cents = f"{abs(dollars):,.{digits}f}".partition(".")
    return f"{'-' if dollars < 0 else ''}${whole}.{cents.rstrip('0').ljust(2, '0')}"


def shown(part: str | None, most: int = 40) -> str:
    """A name in a table: on one line, and not endless."""
    if part is None:
        return "-"
    plain = part if part.isprintable() else repr(part)
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def aligned(table: Sequence[Sequence[str]], names: int) -> str:
    """A table as text: the first ``names`` columns to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at < names else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    )
