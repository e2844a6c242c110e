"""What the journal adds up to: calls, tokens, money, and what limits saved.

Sums are exact: money is counted in whole nano-dollars, and a call whose cost nobody knows is
counted apart, never as free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from decimal import Context, Decimal
from fractions import Fraction
from typing import Any, TypeAlias

from .display import Displayed
from .entries import Entry
from .errors import ConfigurationError
from .usage import NANO
from .windows import UNITS, window, zone
from .wording import aligned, money, shown

Moment: TypeAlias = "float | datetime | None"
Period: TypeAlias = "str | tuple[Moment, Moment]"
"""``"day"``, ``"week"`` or ``"month"``: the current one; ``"all"``; or start and end."""

_EXACT = Context(prec=1000)


@dataclass(slots=True)
class Row:
    """Sums over some calls.

    Attributes:
        calls: calls that were served.
        requests: HTTP requests made for them, the SDK's own retries included.
        input_tokens, output_tokens: what they were charged.
        cached_tokens: the part of the input that was read from the provider's cache.
        nano_usd: what those cost whose price is known, in nano-dollars.
        unpriced: calls whose price is not known.
        guessed: calls that were charged as reserved, since nobody could tell what they used.
        downgraded: calls that another model served than the one asked for.
        refused: calls that were refused.
        waited: calls that stood in line, whether they were served then or refused.
        waited_seconds: how long they did.
        longest_wait: how long the one did that stood longest.
        nano_usd_refused: what the refused calls were estimated to cost.
        nano_usd_downgraded: what the downgraded calls would have cost with the model asked for,
            minus what they cost.
        unpriced_saved: refused or downgraded calls of which that is not known.
        would_refuse, would_delay, would_downgrade: calls that a guard which only observes would
            have treated so.
    """

    calls: int = 0
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    nano_usd: int = 0
    unpriced: int = 0
    guessed: int = 0
    downgraded: int = 0
    refused: int = 0
    waited: int = 0
    waited_seconds: float = 0.0
    longest_wait: float = 0.0
    nano_usd_refused: int = 0
    nano_usd_downgraded: int = 0
    unpriced_saved: int = 0
    would_refuse: int = 0
    would_delay: int = 0
    would_downgrade: int = 0

    @property
    def cost(self) -> Decimal:
        """What the calls cost, in US dollars, exactly; without those of unknown price."""
        return _dollars(self.nano_usd)

    @property
    def saved(self) -> Decimal:
        """What they would have cost more without limits, in US dollars: `nano_usd_refused` and
        `nano_usd_downgraded`. A call that was refused again and again counts each time.
        """
        return _dollars(self.nano_usd_refused + self.nano_usd_downgraded)

    def as_dict(self) -> dict[str, Any]:
        """The sums as JSON values; dollars as text, so that they stay exact."""
        counts = {f.name: getattr(self, f.name) for f in fields(Row)}
        return counts | {"cost": f"{self.cost:f}", "saved": f"{self.saved:f}"}


@dataclass(slots=True)
class _Sum:
    """A row in the making: seconds add up exactly, whatever their order."""

    row: Row = field(default_factory=Row)
    seconds: Fraction = Fraction(0)

    def add(self, entry: Entry) -> None:
        row = self.row
        if entry.waited:
            row.waited += 1
            row.longest_wait = max(row.longest_wait, entry.waited)
            self.seconds += Fraction(entry.waited)
        saved = entry.saved
        row.unpriced_saved += saved is None
        if entry.outcome == "refused":
            row.refused += 1
            row.nano_usd_refused += saved or 0
            return
        used = entry.charged
        row.calls += 1
        row.requests += used.requests
        row.input_tokens += used.input_tokens
        row.output_tokens += used.output_tokens
        row.cached_tokens += used.cached_tokens
        row.nano_usd += used.nano_usd or 0
        row.unpriced += used.nano_usd is None
        row.guessed += entry.used is None
        row.downgraded += entry.because is not None
        row.nano_usd_downgraded += saved or 0
        row.would_refuse += entry.observed == "refused"
        row.would_delay += entry.observed == "delayed"
        row.would_downgrade += entry.observed == "downgraded"

    def done(self) -> Row:
        self.row.waited_seconds = float(self.seconds)
        return self.row


@dataclass(frozen=True, slots=True)
class Report(Displayed):
    """Sums over a period, by group; ``str(report)`` is a table.

    Attributes:
        start, end: the period, in seconds since the epoch; infinite where it has no end.
        by: what the groups are of.
        rows: values of ``by`` -> sums; the dearest first, or in order of time where groups are of
            time.
        total: sums over all.
        tz: the time zone of days and hours.
    """

    start: float
    end: float
    by: tuple[str, ...]
    rows: dict[tuple[str | None, ...], Row]
    total: Row
    tz: str = "UTC"

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "start": _iso(self.start, self.tz),
            "end": _iso(self.end, self.tz),
            "tz": self.tz,
            "by": list(self.by),
            "rows": [
                dict(zip(self.by, key, strict=True)) | row.as_dict()
                for key, row in self.rows.items()
            ],
            "total": self.total.as_dict(),
        }

    def table(self) -> tuple[list[str], list[list[str]], list[str]]:
        """The head, a line for each group, and the totals, as they are shown; columns that are zero
        all the way are left out.
        """
        columns = [c for c in _COLUMNS if c[2] or c[1](self.total) not in ("0", "$0.00")]
        head = [*self.by, *(name for name, _, _ in columns)]
        lines = [
            [*(shown(part) for part in key), *(show(row) for _, show, _ in columns)]
            for key, row in self.rows.items()
        ]
        if self.by:
            ends = ["total", *([""] * (len(self.by) - 1))]
        else:
            ends = []
            lines.clear()
        return head, lines, [*ends, *(show(self.total) for _, show, _ in columns)]

    def __str__(self) -> str:
        head, lines, last = self.table()
        return aligned([head, *lines, last], len(self.by))


_COLUMNS: tuple[tuple[str, Callable[[Row], str], bool], ...] = (
    ("calls", lambda row: f"{row.calls:,}", True),
    ("input", lambda row: f"{row.input_tokens:,}", True),
    ("cached", lambda row: f"{row.cached_tokens:,}", False),
    ("output", lambda row: f"{row.output_tokens:,}", True),
    ("cost", lambda row: money(row.cost), True),
    ("unpriced", lambda row: f"{row.unpriced:,}", False),
    ("guessed", lambda row: f"{row.guessed:,}", False),
    ("refused", lambda row: f"{row.refused:,}", True),
    ("downgraded", lambda row: f"{row.downgraded:,}", True),
    ("waited", lambda row: f"{row.waited:,}", False),
    ("seconds", lambda row: f"{row.waited_seconds:,.1f}" if row.waited else "0", False),
    ("saved", lambda row: money(row.saved), True),
    ("saved?", lambda row: f"{row.unpriced_saved:,}", False),
    ("would refuse", lambda row: f"{row.would_refuse:,}", False),
    ("would delay", lambda row: f"{row.would_delay:,}", False),
    ("would downgrade", lambda row: f"{row.would_downgrade:,}", False),
)
"""Name, how it is shown, and whether it is shown where it is all zero."""

GROUPS: dict[str, Callable[[Entry, str], str | None]] = {
    "user": lambda entry, _: entry.user,
    "org": lambda entry, _: entry.org,
    "tier": lambda entry, _: entry.tier,
    "model": lambda entry, _: entry.served if entry.outcome == "served" else entry.requested,
    "requested": lambda entry, _: entry.requested,
    "day": lambda entry, tz: OF_TIME["day"](entry.time, tz),
    "hour": lambda entry, tz: OF_TIME["hour"](entry.time, tz),
}
OF_TIME: dict[str, Callable[[float, str], str]] = {
    "day": lambda time, tz: f"{_local(time, tz):%Y-%m-%d}",
    "hour": lambda time, tz: f"{_local(time, tz):%Y-%m-%dT%H%z}",
}
"""The groups that are of time: how each names the instant, in a time zone."""


class Sums:
    """A `Report` in the making: one pass over the entries may feed several.

    Args:
        by, tz: as `report` takes them.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    def __init__(self, by: str | Sequence[str], tz: str = "UTC") -> None:
        self._by = _groups(by)
        zone(tz)
        self._tz = tz
        self._sums: dict[tuple[str | None, ...], _Sum] = {}
        self._total = _Sum()

    def add(self, entry: Entry) -> None:
        """Take an entry in, if it is of a call."""
        if entry.outcome == "adjusted":
            return
        key = tuple(GROUPS[group](entry, self._tz) for group in self._by)
        found = self._sums.get(key)
        if found is None:
            found = self._sums[key] = _Sum()
        found.add(entry)
        self._total.add(entry)

    def done(self, start: float = -math.inf, end: float = math.inf) -> Report:
        """The report of what was taken in, which was of ``start <= time < end``."""
        in_time = any(group in OF_TIME for group in self._by)

        def order(item: tuple[tuple[str | None, ...], Row]) -> tuple[Any, ...]:
            key, row = item
            names = tuple((part is not None, part or "") for part in key)
            spent = () if in_time else (-row.nano_usd, -row.input_tokens - row.output_tokens)
            return (*spent, *names)

        rows = {key: each.done() for key, each in self._sums.items()}
        ordered = dict(sorted(rows.items(), key=order))
        return Report(start, end, self._by, ordered, self._total.done(), self._tz)


def report(
    entries: Iterable[Entry],
    by: str | Sequence[str] = ("user", "model"),
    *,
    start: float = -math.inf,
    end: float = math.inf,
    tz: str = "UTC",
) -> Report:
    """Add entries up.

    Args:
        entries: those of ``start <= time < end`` count; adjustments don't.
        by: any of ``"user"``, ``"org"``, ``"tier"``, ``"model"`` (that served; of refused calls the
            one asked for), ``"requested"``, ``"day"`` and ``"hour"``.
        start, end: seconds since the epoch.
        tz: the time zone of days and hours.

    Raises:
        ConfigurationError: an argument is wrong.
    """
    sums = Sums(by, tz)
    for entry in entries:
        if start <= entry.time < end:
            sums.add(entry)
    return sums.done(start, end)


def _groups(by: object) -> tuple[str, ...]:
    groups = (by,) if isinstance(by, str) else by
    for group in groups if isinstance(groups, (list, tuple)) else (groups,):
        if not isinstance(group, str) or group not in GROUPS:
            raise ConfigurationError(f"by is any of {', '.join(GROUPS)}, not {group!r}")
    return tuple(groups)  # type: ignore[arg-type]


def period_of(said: Period, tz: str, now: float) -> tuple[float, float]:
    """Start and end of a period, in seconds since the epoch.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(said, str) and said in UNITS:
        return window(said, tz, now)
    if said == "all":
        return -math.inf, math.inf
    if isinstance(said, (tuple, list)) and len(said) == 2:
        start = -math.inf if said[0] is None else _moment(said[0], tz)
        end = math.inf if said[1] is None else _moment(said[1], tz)
        if start is not None and end is not None and start <= end:
            return start, end
    raise ConfigurationError(
        "a period is 'day', 'week', 'month', 'all', or (start, end) as seconds since the epoch, "
        f"dates or datetimes, not {said!r}"
    )


def _moment(said: object, tz: str) -> float | None:
    if isinstance(said, datetime):
        return (said if said.tzinfo is not None else said.replace(tzinfo=zone(tz))).timestamp()
    if isinstance(said, date):
        return datetime(said.year, said.month, said.day, tzinfo=zone(tz)).timestamp()
    if isinstance(said, (int, float)) and not isinstance(said, bool) and said == said:
        return float(said)
    return None


def _local(moment: float, tz: str) -> datetime:
    return datetime.fromtimestamp(math.floor(moment), zone(tz))


def _iso(moment: float, tz: str) -> str | None:
    return _local(moment, tz).isoformat() if math.isfinite(moment) else None


def _dollars(nano: int) -> Decimal:
    return _EXACT.divide(Decimal(nano), Decimal(NANO))
