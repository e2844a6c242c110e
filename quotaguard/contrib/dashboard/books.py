"""What the journal says, added up for a page: read in a thread, in one pass."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from ...entries import Entry
from ...journal import Journal
from ...report import OF_TIME, Report, Row, Sums
from ...windows import zone

RECENT = 100
"""Entries of a story that are shown: the newest."""
_REST = 10.0
"""A summary is kept for so many times what it took to make, so that a long journal is not read
without pause; at most `_KEPT` seconds."""
_KEPT = 30.0
_MOST = 64
"""Summaries that are kept."""


class Span(NamedTuple):
    """A stretch of time up to now, and the steps that charts go in."""

    key: str
    title: str
    step: str
    """``"hour"`` or ``"day"``."""
    steps: int

    def starts(self, now: float, tz: str) -> list[float]:
        """When each step begins, in seconds since the epoch; the last is the current one."""
        place = zone(tz)
        local = datetime.fromtimestamp(now, place)
        if self.step == "hour":
            last = local.replace(minute=0, second=0, microsecond=0).timestamp()
            return [last - 3600.0 * back for back in range(self.steps - 1, -1, -1)]
        days = [local.date() - timedelta(days=back) for back in range(self.steps - 1, -1, -1)]
        return [datetime(d.year, d.month, d.day, tzinfo=place).timestamp() for d in days]


SPANS = {
    span.key: span
    for span in (
        Span("24h", "24 hours", "hour", 24),
        Span("7d", "7 days", "day", 7),
        Span("30d", "30 days", "day", 30),
    )
}


class Account(NamedTuple):
    """Whose entries: a user's (in an org, or in none), or without a user all of an org."""

    user: str | None
    org: str | None


class Refusals(NamedTuple):
    """What one limit, or a tier's list of models, refused."""

    limit: str | None
    reason: str | None
    calls: int
    last: float


class Step(NamedTuple):
    """The sums of one step of time."""

    start: float
    row: Row


@dataclass(frozen=True, slots=True)
class Summary:
    """What the entries of a span add up to.

    Attributes:
        steps: sums over time; those without calls are there too.
        people: sums by user and org.
        models: sums by the model asked for and the one that served.
        refusals: by what refused, the most first.
        recent: the newest entries first; of everybody only those that are no plain calls.
        tiers: the newest tier of each account.
        orgs: of a user's account, the orgs in which that name occurs, the account's own left out.
    """

    steps: tuple[Step, ...]
    people: Report
    models: Report
    refusals: tuple[Refusals, ...]
    recent: tuple[Entry, ...]
    tiers: dict[Account, str | None]
    orgs: frozenset[str | None]

    @property
    def total(self) -> Row:
        """Sums over all of it."""
        return self.people.total


class Books:
    """Summaries of a journal.

    Args:
        journal: one that can be read back.
        now: seconds since the epoch.
        tz: the time zone of days and hours.
    """

    def __init__(self, journal: Journal, now: Callable[[], float], tz: str) -> None:
        self._journal = journal
        self._now = now
        self._tz = tz
        self._one_at_a_time = threading.Lock()
        self._kept: OrderedDict[tuple[Span, Account | None], tuple[float, Summary]] = OrderedDict()

    async def summary(self, span: Span, account: Account | None = None) -> Summary:
        """What the journal says of everybody, or of one account.

        Raises:
            BackendError: it could not be read.
        """
        return await asyncio.to_thread(self._summary, span, account)

    def forget(self) -> None:
        """What was read is out of date."""
        with self._one_at_a_time:
            self._kept.clear()

    def _summary(self, span: Span, account: Account | None) -> Summary:
        with self._one_at_a_time:
            until, found = self._kept.get((span, account), (0.0, None))
            if found is not None and time.monotonic() < until:
                return found
            began = time.monotonic()
            starts = span.starts(self._now(), self._tz)
            found = summed(self._journal.entries(starts[0]), starts, span.step, self._tz, account)
            ended = time.monotonic()
            kept = min(_KEPT, _REST * (ended - began))
            self._kept.pop((span, account), None)
            self._kept[span, account] = ended + kept, found
            if len(self._kept) > _MOST:
                self._kept.popitem(last=False)
            return found


def summed(
    entries: Iterable[Entry], starts: list[float], step: str, tz: str, account: Account | None
) -> Summary:
    """Add entries up, in one pass."""
    people, models, times = (
        Sums(("user", "org"), tz),
        Sums(("requested", "model"), tz),
        Sums(step, tz),
    )
    recent: deque[Entry] = deque(maxlen=RECENT)
    tiers: dict[Account, str | None] = {}
    refused: dict[tuple[str | None, str | None], Refusals] = {}
    orgs: set[str | None] = set()
    for entry in entries:
        if account is not None and not _is_of(entry, account):
            if account.user is not None and entry.user == account.user:
                orgs.add(entry.org)
            continue
        if account is not None or not _plain(entry):
            recent.append(entry)
        for sums in (people, models, times):
            sums.add(entry)
        if entry.outcome != "adjusted":
            tiers[Account(entry.user, entry.org)] = entry.tier
        if entry.outcome == "refused":
            key = entry.limit, entry.reason
            calls = refused[key].calls if key in refused else 0
            refused[key] = Refusals(*key, calls + 1, entry.time)
    rows = times.done().rows
    return Summary(
        tuple(Step(start, rows.get((OF_TIME[step](start, tz),), Row())) for start in starts),
        people.done(starts[0]),
        models.done(starts[0]),
        tuple(sorted(refused.values(), key=lambda each: -each.calls)),
        tuple(reversed(recent)),
        tiers,
        frozenset(orgs),
    )


def _is_of(entry: Entry, account: Account) -> bool:
    return entry.org == account.org and account.user in (None, entry.user)


def _plain(entry: Entry) -> bool:
    """Whether it is a call that went as it was asked for."""
    return entry.outcome == "served" and entry.because is None and entry.observed is None


RANKS: dict[str, Callable[[Row], float]] = {
    "cost": lambda row: row.nano_usd,
    "tokens": lambda row: row.input_tokens + row.output_tokens,
    "calls": lambda row: row.calls,
    "refused": lambda row: row.refused,
    "downgraded": lambda row: row.downgraded,
    "saved": lambda row: row.nano_usd_refused + row.nano_usd_downgraded,
}
"""What people can be sorted by."""


def ranked(people: Report, rank: str) -> list[tuple[Account, Row]]:
    """People, those with the most first."""
    of = RANKS[rank]
    found = [(Account(*key), row) for key, row in people.rows.items()]
    return found if rank == "cost" else sorted(found, key=lambda each: -of(each[1]))
