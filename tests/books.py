"""Guards that keep a journal, and entries of all kinds: for the tests of journals and reports."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from quotaguard import Entry, Guard, Price, Tier, Usage
from quotaguard.testing import FakeClock

PRICES = {"large": Price(10, 20), "small": Price(1, 2)}
counts = st.integers(0, 10**30)
names = (
    st.none() | st.text(min_size=1) | st.sampled_from(["a\nb", '{"time":1}', "\ud800", "x" * 99])
)
usages = st.builds(
    Usage, counts, counts, counts, counts, counts, counts, counts, st.none() | counts
)
seconds = st.floats(0, 1e10)
entries = st.builds(
    Entry,
    time=seconds,
    id=st.text(max_size=20),
    outcome=st.sampled_from(["served", "refused", "adjusted"]),
    user=names,
    org=names,
    tier=names,
    requested=names,
    served=names,
    reason=names,
    limit=names,
    because=names,
    observed=st.none() | st.sampled_from(["refused", "delayed", "downgraded"]),
    began=st.none() | seconds,
    waited=seconds,
    reserved=usages,
    used=st.none() | usages,
    in_full=st.none() | counts,
    stated=st.none() | st.booleans(),
    by=names,
    changes=st.lists(st.tuples(st.text(), seconds, seconds), max_size=2).map(tuple),
)


def guard_of(to: Any, mode: str = "enforce", when_exceeded: Any = ()) -> Guard:
    """A guard that keeps a journal, with a large and a small model at a known price."""
    tier = Tier(
        "pro",
        ["100 tokens/minute for large", "100 tokens/minute for small"],
        ["large", "small"],
        when_exceeded,
    )
    return Guard(tiers=[tier], clock=FakeClock(), journal=to, prices=PRICES, mode=mode)


def call(guard: Guard, tokens: int, model: str = "large", user: str = "alice") -> None:
    """A call that uses half of what it reserves."""
    with guard.hold(user=user, model=model, input_tokens=tokens, output_tokens=0) as lease:
        lease.record(input_tokens=tokens // 2)


def kept(guard: Guard) -> list[Entry]:
    """What its journal holds."""
    assert guard.journal is not None
    return list(guard.journal.entries())
