"""Calendar windows: when the day, week or month around an instant began and ends."""

from __future__ import annotations

import math
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from .errors import ConfigurationError

if TYPE_CHECKING:  # loaded by the first calendar window
    from zoneinfo import ZoneInfo

UNITS = ("day", "week", "month")


def zone(name: str) -> ZoneInfo:
    """The time zone of that IANA name.

    Raises:
        ConfigurationError: there is none of that name on this machine.
    """
    if not isinstance(name, str):
        raise ConfigurationError(f"a time zone is a name such as 'Europe/Paris', not {name!r}")
    return _zone(name)


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"unknown time zone {name!r}; an IANA name such as 'UTC' or 'Europe/Paris' is needed "
            "(on systems without a time zone database, install the package tzdata)"
        ) from error


_last: dict[tuple[str, str], tuple[float, float]] = {}


def window(unit: str, tz: str, now: float) -> tuple[float, float]:
    """Start and end, in seconds since the epoch, of the calendar window that holds ``now``.

    Boundaries are local midnights, so a day is 23 or 25 hours long where the clocks change; weeks
    begin on Monday.
    """
    found = _last.get((unit, tz))
    if found is not None and found[0] <= now < found[1]:
        return found
    place = zone(tz)
    today = datetime.fromtimestamp(math.floor(now), place).date()  # it would round up to midnight
    if unit == "day":
        first, after = today, today + timedelta(days=1)
    elif unit == "week":
        first = today - timedelta(days=today.weekday())
        after = first + timedelta(days=7)
    else:
        first = today.replace(day=1)
        after = (first + timedelta(days=32)).replace(day=1)
    bounds = _midnight(first, place), _midnight(after, place)
    _last[unit, tz] = bounds
    return bounds


def _midnight(day: date, place: ZoneInfo) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=place).timestamp()
