"""Calendar windows: local midnights, whatever the clocks do."""

from __future__ import annotations

import re
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotaguard import ConfigurationError
from quotaguard.windows import UNITS, window, zone
from tests.strategies import ZONES, moments

HOUR = 3600.0
DAY = 24 * HOUR
PARIS, NEW_YORK = "Europe/Paris", "America/New_York"
AWKWARD = (
    *ZONES,
    NEW_YORK,
    "America/Havana",  # midnight comes twice
    "America/Nuuk",  # the clocks turn at midnight
    "Asia/Beirut",  # midnight is skipped
    "Australia/Lord_Howe",  # by half an hour
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
)


def at(text: str, tz: str = "UTC") -> float:
    """Seconds since the epoch of a local time."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(tz)).timestamp()


@pytest.mark.parametrize(
    ("tz", "day", "hours"),
    [
        (PARIS, "2026-03-28", 24),
        (PARIS, "2026-03-29", 23),
        (PARIS, "2026-10-25", 25),
        (NEW_YORK, "2026-03-08", 23),
        (NEW_YORK, "2026-11-01", 25),
        (NEW_YORK, "2026-11-02", 24),
        ("UTC", "2026-03-29", 24),
    ],
)
def test_days_are_as_long_as_the_clocks_make_them(tz: str, day: str, hours: int) -> None:
    """A day lasts from midnight to midnight: 23 or 25 hours where the clocks change."""
    for time in ("00:00:00", "01:30:00", "12:00:00", "23:59:59"):
        start, end = window("day", tz, at(f"{day} {time}", tz))
        assert start == at(f"{day} 00:00", tz)
        assert end - start == hours * HOUR


@pytest.mark.parametrize(
    ("tz", "now", "start", "end", "hours"),
    [
        (PARIS, "2026-03-29 12:00", "2026-03-23", "2026-03-30", 167),
        (PARIS, "2026-10-19 00:00", "2026-10-19", "2026-10-26", 169),
        (NEW_YORK, "2026-03-04 08:00", "2026-03-02", "2026-03-09", 167),
        (NEW_YORK, "2026-11-01 23:00", "2026-10-26", "2026-11-02", 169),
        ("UTC", "2025-12-31 23:59", "2025-12-29", "2026-01-05", 168),
    ],
)
def test_weeks_begin_on_monday(tz: str, now: str, start: str, end: str, hours: int) -> None:
    """Also across a change of the clocks and a new year."""
    found = window("week", tz, at(now, tz))
    assert found == (at(start, tz), at(end, tz))
    assert found[1] - found[0] == hours * HOUR


@pytest.mark.parametrize(
    ("tz", "now", "start", "end", "hours"),
    [
        ("UTC", "2026-01-31 23:59:59", "2026-01-01", "2026-02-01", 31 * 24),
        ("UTC", "2026-02-28 23:59:59", "2026-02-01", "2026-03-01", 28 * 24),
        ("UTC", "2028-02-29 12:00", "2028-02-01", "2028-03-01", 29 * 24),
        ("UTC", "2100-02-28 12:00", "2100-02-01", "2100-03-01", 28 * 24),
        ("UTC", "2026-12-31 12:00", "2026-12-01", "2027-01-01", 31 * 24),
        (PARIS, "2026-03-31 12:00", "2026-03-01", "2026-04-01", 31 * 24 - 1),
        (PARIS, "2026-10-01 00:00", "2026-10-01", "2026-11-01", 31 * 24 + 1),
        (NEW_YORK, "2026-11-30 23:59", "2026-11-01", "2026-12-01", 30 * 24 + 1),
    ],
)
def test_months_have_their_own_lengths(tz: str, now: str, start: str, end: str, hours: int) -> None:
    """28 to 31 days, an hour more or less where the clocks change."""
    found = window("month", tz, at(now, tz))
    assert found == (at(start, tz), at(end, tz))
    assert found[1] - found[0] == hours * HOUR


def test_the_zone_says_which_day_it_is() -> None:
    """One instant lies in different days of different zones."""
    now = at("2026-06-30 23:30")
    assert window("day", "UTC", now)[0] == at("2026-06-30")
    assert window("day", PARIS, now)[0] == at("2026-07-01", PARIS)
    assert window("month", PARIS, now)[0] == at("2026-07-01", PARIS)
    assert window("day", NEW_YORK, now)[0] == at("2026-06-30", NEW_YORK)


def test_a_boundary_belongs_to_the_later_window() -> None:
    """The last double before midnight is still today, midnight itself is tomorrow."""
    midnight = at("2026-06-02", PARIS)
    assert window("day", PARIS, midnight - 2**-22)[1] == midnight
    assert window("day", PARIS, midnight)[0] == midnight


@given(st.sampled_from(UNITS), st.sampled_from(AWKWARD), moments)
def test_windows_hold_their_instants_and_leave_no_gap(unit: str, tz: str, now: float) -> None:
    """Start <= now < end, and each window begins where the one before it ended."""
    start, end = window(unit, tz, now)
    assert start <= now < end
    assert window(unit, tz, start) == (start, end)
    assert window(unit, tz, end)[0] == end
    assert window(unit, tz, start - 1)[1] == start


@given(st.sampled_from(UNITS), st.sampled_from(AWKWARD), st.lists(moments, min_size=2, max_size=6))
def test_what_was_asked_before_changes_no_answer(unit: str, tz: str, instants: list[float]) -> None:
    """Bounds that are remembered are those that would be computed."""
    first = [window(unit, tz, now) for now in instants]
    assert [window(unit, tz, now) for now in reversed(instants)] == first[::-1]


@given(st.sampled_from(AWKWARD), moments)
def test_larger_windows_are_made_of_whole_days(tz: str, now: float) -> None:
    """A week and a month begin and end where a day does."""
    day = window("day", tz, now)
    for unit in ("week", "month"):
        start, end = window(unit, tz, now)
        assert start <= day[0] < day[1] <= end
        assert window("day", tz, start)[0] == start
        assert window("day", tz, end)[0] == end


@pytest.mark.parametrize("name", ["Mars/Base", "", "../etc/passwd", "Europe/Pari\0s", "Europe"])
def test_unknown_zones_are_named(name: str) -> None:
    """The error gives the name and an example of a right one."""
    with pytest.raises(ConfigurationError, match=re.escape(f"unknown time zone {name!r}")) as error:
        zone(name)
    assert "'Europe/Paris'" in str(error.value)
