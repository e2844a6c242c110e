"""Token buckets, calendar windows and slots of calls in flight as pure arithmetic.

A bucket's whole state is two floats: ``drained``, how far it is below full, and ``at``, when that
was true (for a window: when the window began; for slots: when the last lease that holds one ends).
What is full is ``(0, _)``, so a bucket that nobody uses needs no state. Drained above the ceiling
is debt.

The token bucket is the classic one, kept as its complement (drained = ceiling - level), as in the
leaky bucket as a meter: https://en.wikipedia.org/wiki/Leaky_bucket#As_a_meter
"""

from __future__ import annotations

import math
from typing import TypeAlias

from ..limits import Limit
from ..windows import window

State: TypeAlias = tuple[float, float]
"""``drained`` and ``at``."""
FULL: State = (0.0, 0.0)
ANY_MOMENT = 1.0
"""Seconds to say at least where nobody can know: those before will take the free slots, and give
them back when they like."""


def advance(limit: Limit, state: State | None, now: float) -> State:
    """The state at ``now``; None is a full bucket. A clock that steps back changes nothing until it
    has caught up.
    """
    drained, at = state or FULL
    if limit.is_window:
        start = window(limit.period, limit.tz, now)[0]  # type: ignore[arg-type]
        return (drained, at) if drained > 0.0 and start <= at else (0.0, start)
    if limit.in_flight:
        return (drained, at) if drained > 0.0 and now < at else (0.0, now)
    if drained <= 0.0:
        return 0.0, now
    if now <= at:
        return drained, at
    drained -= (now - at) * limit.rate
    return (drained if drained > 0.0 else 0.0), now


def room(limit: Limit, drained: float, amount: float, least: float) -> float | None:
    """What a bucket grants of ``amount``: all, or as much as it holds, if it holds ``least``; else
    None. Nothing (an amount of 0) always fits, also in debt.
    """
    if amount <= 0.0:
        return 0.0
    free = limit.ceiling - drained
    if least > free + limit.slack:
        return None
    if amount <= free + limit.slack:
        return amount
    return max(least, free)


def wait(
    limit: Limit, drained: float, at: float, least: float, now: float, ahead: float = 0.0
) -> float:
    """Seconds until ``least`` fits, if those in line before it draw ``ahead`` and nobody else draws
    anything; infinite if it never will. Of slots: until the last lease that holds one ends, since
    nobody knows when calls do.
    """
    if least > limit.ceiling + limit.slack:
        return math.inf
    excess = drained + ahead + least - limit.ceiling
    if excess <= limit.slack:
        return 0.0
    if limit.is_window:
        end = window(limit.period, limit.tz, max(now, at))[1]  # type: ignore[arg-type]
        taken = ahead + least
        while taken > limit.ceiling + limit.slack and limit.ceiling > 0.0:
            taken -= limit.ceiling  # those ahead use up the next window
            end = window(limit.period, limit.tz, end)[1]  # type: ignore[arg-type]
        return max(0.0, end - now)
    if limit.in_flight:
        return max(at - now, ANY_MOMENT)
    if limit.rate <= 0.0:
        return math.inf
    return excess / limit.rate + max(0.0, at - now)


def full_in(limit: Limit, drained: float, at: float, now: float) -> float:
    """Seconds until the bucket is full if nothing else is drawn."""
    return wait(limit, drained, at, limit.ceiling, now) if drained > 0.0 else 0.0


def correct(limit: Limit, drained: float, at: float, change: float, mark: float) -> float:
    """The drained amount after a reservation is corrected by ``change`` (negative: a refund).

    ``mark`` is the state's ``at`` when the reservation was made. What a past window was charged
    is not given back to the present one; a deficit is owed whenever it shows. A refund never
    lifts a bucket above full.
    """
    if change < 0.0 and limit.is_window and mark < at:
        return drained
    return max(0.0, drained + change)
