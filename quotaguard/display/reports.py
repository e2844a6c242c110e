"""A report, shown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from ..windows import zone
from ..wording import money, shown
from . import chart, page

if TYPE_CHECKING:
    from ..report import Report, Row

MOST_ROWS = 50
"""Rows that a table shows; the totals are of all."""
_HOUR = 3600.0
_MOST_BARS = 6
_MOST_COLUMNS = 400
"""Stretches of time that a chart has room for."""


def as_html(report: Report) -> page.Html:
    """The report as a card: totals, use over time where it is grouped by that, and the table."""
    head, lines, last = report.table()
    hidden = len(lines) - MOST_ROWS
    more = f"{hidden:,} more rows are in the totals" if hidden > 0 else ""
    return page.card(
        _title(report),
        page.tiles(facts(report.total)),
        usage_chart(report) or _shares(report),
        page.table(head, lines[:MOST_ROWS], last, names=len(report.by))
        if report.by
        else page.join(()),
        page.note(more, "foot"),
    )


def as_text(report: Report) -> str:
    """The table."""
    return str(report)


def facts(row: Row) -> Iterator[tuple[str, str]]:
    """The sums that a reader looks for first; what did not happen is left out."""
    yield f"{row.calls:,}", "call" if row.calls == 1 else "calls"
    yield f"{row.input_tokens:,}", "input tokens"
    yield f"{row.output_tokens:,}", "output tokens"
    yield ("?" if row.unpriced == row.calls != 0 else money(row.cost)), "cost"
    for number, what in (
        (row.unpriced if row.unpriced < row.calls else 0, "without a price"),
        (row.guessed, "charged as reserved"),
        (row.downgraded, "downgraded"),
        (row.refused, "refused"),
        (row.waited, f"waited {row.waited_seconds:,.1f} s"),
    ):
        if number:
            yield f"{number:,}", what
    if row.saved:
        yield money(row.saved), "saved by limits"


def _shares(report: Report) -> page.Html:
    """The largest groups as bars: of what they cost, or of their tokens where nobody knows that."""
    priced = report.total.nano_usd > 0
    total = report.total.nano_usd if priced else _tokens(report.total)
    if len(report.rows) < 2 or not total:
        return page.Html("")
    shares = [
        (", ".join(map(shown, key)), row, (row.nano_usd if priced else _tokens(row)) / total)
        for key, row in report.rows.items()
    ]
    shares.sort(key=lambda each: -each[2])
    return page.join(
        page.bar(name, f"{money(row.cost)}, {_tokens(row):,} tokens", share, 0.0, page.BLUE)
        for name, row, share in shares[:_MOST_BARS]
    )


def _tokens(row: Row) -> int:
    return row.input_tokens + row.output_tokens


def usage_chart(report: Report) -> page.Html:
    """Tokens by day or hour; nothing if the report is by neither."""
    unit = next((each for each in ("hour", "day") if each in report.by), None)
    if unit is None:
        return page.Html("")
    at = report.by.index(unit)
    sums: dict[str, tuple[int, int]] = {}
    for key, row in report.rows.items():
        name = key[at] or ""
        so_far = sums.get(name, (0, 0))
        sums[name] = so_far[0] + row.input_tokens, so_far[1] + row.output_tokens
    given = [
        chart.Column(label, *sums.get(name, (0, 0)))
        for name, label in _stretches(report, unit, sorted(sums))
    ]
    return chart.columns(f"tokens by {unit}", given)


def _stretches(report: Report, unit: str, named: Sequence[str]) -> list[tuple[str, str]]:
    """Name and label of every stretch of time, those in which nothing was used too: of a single
    day all hours, else from the first that was used to the last.
    """
    if not named:
        return []
    moments: list[date]
    if unit == "day":
        form, label = "%Y-%m-%d", "%d %b"
        start, end = (date.fromisoformat(each) for each in (named[0], named[-1]))
        moments = [start + timedelta(days=n) for n in range((end - start).days + 1)]
    else:
        form, label = "%Y-%m-%dT%H%z", "%H:%M"
        first, last = (_moment(each, form) for each in (named[0], named[-1]))
        if _is_a_day(report):
            first, last = report.start, report.end - _HOUR
        count = round((last - first) / _HOUR) + 1
        place = zone(report.tz)
        moments = [datetime.fromtimestamp(first + _HOUR * n, place) for n in range(count)]
    if len(moments) > _MOST_COLUMNS:
        return [(each, each) for each in named]
    return [(moment.strftime(form), moment.strftime(label)) for moment in moments]


def _moment(named: str, form: str) -> float:
    return datetime.strptime(named, form).timestamp()  # noqa: DTZ007  # %z is in it


def _is_a_day(report: Report) -> bool:
    return report.end - report.start <= 25 * _HOUR


def _title(report: Report) -> str:
    if not math.isfinite(report.start) or not math.isfinite(report.end):
        return "Usage"
    start, end = (datetime.fromtimestamp(m, zone(report.tz)) for m in (report.start, report.end))
    if _is_a_day(report) and (start.hour, start.minute) == (0, 0):
        return f"Usage on {start:%Y-%m-%d} ({report.tz})"
    return f"Usage from {start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} ({report.tz})"
