"""The arithmetic of buckets and windows."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quotaguard import Limit
from quotaguard.core import bucket
from quotaguard.windows import window

from ..strategies import buckets, limits, moments, shares

NOON = 1_767_268_800.0


def level(limit: Limit, state: bucket.State) -> float:
    """What a bucket in that state holds."""
    return limit.ceiling - state[0]


@given(limits(), moments, shares, shares)
def test_exactly_after_the_wait_there_is_room(
    limit: Limit, now: float, gone: float, wanted: float
) -> None:
    """Whatever the limit and the hour: floats do not make a caller come back twice."""
    state = gone * limit.ceiling * 1.5, bucket.advance(limit, None, now)[1]
    least = wanted * limit.ceiling
    seconds = bucket.wait(limit, *state, least, now)
    assert 0 <= seconds < math.inf
    drained, _ = bucket.advance(limit, state, now + seconds)
    assert bucket.room(limit, drained, least, least) == least


@given(limits(), moments, shares, shares)
def test_a_hair_before_there_is_not(limit: Limit, now: float, gone: float, wanted: float) -> None:
    """The wait is no longer than it must be: what is short then is no rounding."""
    state = gone * limit.ceiling * 1.5, bucket.advance(limit, None, now)[1]
    least = wanted * limit.ceiling
    seconds = bucket.wait(limit, *state, least, now)
    hair = 1e-3 if limit.is_window else 3 * limit.slack / limit.rate + 1e-6
    if seconds > hair and least > 0:
        drained, _ = bucket.advance(limit, state, now + seconds - hair)
        assert bucket.room(limit, drained, least, least) is None


@given(limits(), moments, shares, st.floats(0, 1e7))
def test_levels_stay_within_bounds(limit: Limit, now: float, gone: float, seconds: float) -> None:
    """As time passes a bucket only gains, and never more than it can hold."""
    before = gone * limit.ceiling, bucket.advance(limit, None, now)[1]
    after = bucket.advance(limit, before, now + seconds)
    assert level(limit, before) <= level(limit, after) <= limit.ceiling


@given(buckets, moments, shares, st.floats(0, 1e5), st.floats(0, 1e5))
def test_looking_in_between_changes_nothing(
    limit: Limit, now: float, gone: float, first: float, then: float
) -> None:
    """Refilling in two steps is refilling in one."""
    state = gone * limit.ceiling, now
    once = bucket.advance(limit, state, now + first + then)
    twice = bucket.advance(limit, bucket.advance(limit, state, now + first), now + first + then)
    assert level(limit, once) == pytest.approx(level(limit, twice), abs=2 * limit.slack)


@example(Limit(0.01, "input_tokens", 1), 1.6e9, 0.0001, 1.0)
@given(buckets, moments, shares, st.floats(0.001, 1e5))
def test_a_clock_that_steps_back_changes_nothing(
    limit: Limit, now: float, gone: float, seconds: float
) -> None:
    """Until it has caught up; and it does not refill twice what was refilled once."""
    state = gone * limit.ceiling, now
    back = bucket.advance(limit, state, now - seconds)
    assert level(limit, back) == level(limit, state)
    if state[0] > limit.slack:
        assert bucket.advance(limit, back, now) == state
        wait = bucket.wait(limit, *state, limit.ceiling, now)
        later = bucket.wait(limit, *back, limit.ceiling, now - seconds)
        if wait > 0.0:
            assert later == pytest.approx(wait + seconds, abs=1e-6)
        else:  # short by no more than what rounds: then it fits at both times
            assert later == 0.0


@given(limits(), shares, shares, shares)
def test_what_a_bucket_grants(limit: Limit, gone: float, wanted: float, hard: float) -> None:
    """All, or what there is if that is at least the least, or nothing."""
    drained, amount = gone * limit.ceiling, wanted * limit.ceiling
    least = hard * amount
    free = limit.ceiling - drained
    granted = bucket.room(limit, drained, amount, least)
    if amount <= free:
        assert granted == amount
    elif least <= free:
        assert granted in (free, amount)  # that there is a trillionth less is no reason
    elif least > free + limit.slack:
        assert granted is None


def test_nothing_fits_a_bucket_in_debt() -> None:
    """A charge of 0 is always granted, and is worth nothing."""
    limit = Limit(10, "tokens", 60)
    assert bucket.room(limit, 1e9, 0.0, 0.0) == 0.0
    assert bucket.room(limit, 1e9, 1.0, 0.5) is None


def test_the_wait_behind_others() -> None:
    """A bucket must refill for those ahead too; a window serves so many of them a time."""
    limit = Limit(60, "tokens", 60)
    assert bucket.wait(limit, 0.0, NOON, 10.0, NOON, ahead=50.0) == 0.0
    assert bucket.wait(limit, 60.0, NOON, 10.0, NOON, ahead=50.0) == 60.0
    assert bucket.wait(limit, 60.0, NOON, 60.0, NOON, ahead=600.0) == 660.0
    day = Limit(100, "tokens", "day")
    start, end = window("day", "UTC", NOON)
    assert bucket.wait(day, 0.0, start, 50.0, NOON, ahead=50.0) == 0.0
    for ahead, later in [(0, 0), (50, 0), (51, 1), (100, 1), (150, 1), (151, 2), (551, 6)]:
        seconds = bucket.wait(day, 100.0, start, 50.0, NOON, ahead)
        assert seconds == end - NOON + later * 86_400


def test_what_never_fits() -> None:
    """More than a bucket holds, and anything of a limit of 0."""
    for limit in (Limit(10, "tokens", 60), Limit(10, "tokens", "day")):
        assert bucket.wait(limit, 0.0, 0.0, 10.1, NOON) == math.inf
    for limit in (Limit(0, "tokens", 60), Limit(0, "tokens", "day")):
        assert bucket.wait(limit, 0.0, 0.0, 1.0, NOON) == math.inf
        assert bucket.wait(limit, 0.0, 0.0, 0.0, NOON) == 0.0
        assert bucket.wait(limit, 0.0, 0.0, 0.0, NOON, ahead=5.0) in (math.inf, 43_200.0)


def test_time_to_full() -> None:
    """A bucket's refill, a window's reset; nothing for what is full."""
    limit, day = Limit(60, "tokens", 60), Limit(60, "tokens", "day")
    assert bucket.full_in(limit, 0.0, 0.0, NOON) == bucket.full_in(day, 0.0, 0.0, NOON) == 0.0
    assert bucket.full_in(limit, 90.0, NOON, NOON) == 90.0
    assert bucket.full_in(day, 1.0, NOON - 43_200, NOON) == 43_200.0


def test_corrections() -> None:
    """Surplus returns up to full, but not to a later window; a deficit is owed whenever."""
    limit, day = Limit(60, "tokens", 60), Limit(60, "tokens", "day")
    assert bucket.correct(limit, 50.0, NOON, -20.0, NOON - 500) == 30.0
    assert bucket.correct(limit, 10.0, NOON, -20.0, NOON) == 0.0
    assert bucket.correct(limit, 50.0, NOON, 20.0, NOON) == 70.0
    assert bucket.correct(day, 50.0, NOON, -20.0, NOON) == 30.0
    assert bucket.correct(day, 50.0, NOON, -20.0, NOON - 1) == 50.0
    assert bucket.correct(day, 50.0, NOON, 20.0, NOON - 1) == 70.0
