"""Buckets as bars."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from ..core.ops import BucketState
from ..limits import Limit
from ..wording import amount, money, seconds, shown
from .page import AMBER, BLUE, RED, Html, bar, join

_CELLS = 20
"""Characters of a bar in a terminal."""


class Level(NamedTuple):
    """How full a bucket is, in units of its metric."""

    label: str
    limit: Limit
    left: float
    held: float = 0.0
    full_in: float | None = None
    """Seconds until it is full again; None: that is not known."""

    @property
    def capacity(self) -> float:
        """The most that it holds."""
        return self.limit.ceiling / self.limit.scale

    @property
    def used(self) -> float:
        """The share of it that calls used up, 0 to 1; more in debt, 1 of a bucket of nothing."""
        return 1.0 - (self.left + self.held) / self.capacity if self.capacity else 1.0

    @property
    def held_share(self) -> float:
        """The share of it that open reservations hold."""
        return self.held / self.capacity if self.capacity else 0.0

    def said(self) -> str:
        """What is left, and when it is full again."""
        limit = self.limit
        if limit.metric == "usd":
            text = f"{_dollars(self.left)} of {_dollars(self.capacity)} left"
        elif limit.in_flight:
            return f"{amount(self.left)} of {amount(self.capacity)} calls in flight free"
        else:
            what = limit.metric.replace("_", " ")
            text = f"{amount(round(self.left, 2))} of {amount(self.capacity)} {what} left"
        if self.full_in:
            text += f", {'resets' if limit.is_window else 'full'} in {seconds(self.full_in)}"
        return text


def of(states: Iterable[BucketState]) -> list[Level]:
    """The levels of buckets; a shared one says whose it is by its limit's text."""
    return [
        Level(state.limit.text, state.limit, state.left, state.held, state.full_in)
        for state in states
    ]


def as_html(levels: Iterable[Level]) -> Html:
    """A bar for each."""
    return join(
        bar(level.label, level.said(), level.used, level.held_share, _colour(level))
        for level in levels
    )


def as_text(levels: Iterable[Level]) -> str:
    """A line for each."""
    each = list(levels)
    width = max((len(shown(level.label)) for level in each), default=0)
    return "\n".join(
        f"{shown(level.label):{width}}  {_cells(level.used)}  {level.said()}" for level in each
    )


def _colour(level: Level) -> str:
    if level.left <= 0:
        return RED
    return AMBER if level.used + level.held_share >= 0.8 else BLUE


def _cells(share: float) -> str:
    full = round(min(1.0, max(0.0, share)) * _CELLS)
    return "█" * full + "░" * (_CELLS - full)


def _dollars(value: float) -> str:
    return money(Decimal(repr(round(value, 6))))
