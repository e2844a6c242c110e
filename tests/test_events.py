"""What hooks are told of a call, and that they change nothing."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from quotaguard import (
    Fallback,
    Guard,
    Identity,
    ModelNotAllowed,
    QuotaExceeded,
    Tier,
    Usage,
    Wait,
)
from quotaguard.events import (
    Admitted,
    Event,
    FellBack,
    Refused,
    Settled,
    Teller,
    Waited,
    Waiting,
    listen,
)
from quotaguard.testing import FakeClock
from quotaguard.testing.clock import START

ALICE = Identity("alice", None, "pro")


def make(*hooks: Any, when_exceeded: Any = ()) -> Guard:
    """A guard with a large and a small model."""
    tier = Tier(
        "pro",
        ["100 tokens/minute for large", "100 tokens/minute for small"],
        ["large", "small"],
        when_exceeded,
    )
    return Guard(tiers=[tier], clock=FakeClock(), hooks=hooks)


def call(guard: Guard, tokens: int, model: str = "large") -> None:
    """A call that uses half of what it reserves."""
    with guard.hold(user="alice", model=model, input_tokens=tokens, output_tokens=0) as lease:
        lease.record(input_tokens=tokens // 2)


def test_the_story_of_a_call() -> None:
    """Admitted, then settled: by id, for whom, of which model, how much."""
    told: list[Event] = []
    call(make(told.append), 80)
    admitted, settled = told
    assert admitted == Admitted(admitted.id, ALICE, "large", "large", Usage(1, 80, 0))
    assert settled == Settled(
        admitted.id,
        ALICE,
        "large",
        "large",
        Usage(1, 80, 0),
        Usage(1, 40, 0),
        False,
        left=(("100 tokens/minute for large", 0.6),),
        began=START,
        stated=True,
    )


def test_a_fallback_and_a_wait() -> None:
    """The detours are told in order, with what was in the way."""
    told: list[Event] = []
    guard = make(told.append, when_exceeded=[Fallback("small"), Wait(60, backoff=None)])
    for _ in range(3):
        call(guard, 80)
    kinds = [type(event) for event in told]
    assert kinds == [
        Admitted, Settled, FellBack, Admitted, Settled, Waiting, Waited, Admitted, Settled,
    ]  # fmt: skip
    fell, waiting, waited = told[2], told[5], told[6]
    assert isinstance(fell, FellBack)
    assert (fell.served, fell.limit) == ("small", "100 tokens/minute for large")
    assert isinstance(waiting, Waiting)
    assert waiting.seconds == pytest.approx(12)
    assert isinstance(waited, Waited)
    assert waited.seconds == pytest.approx(12)
    assert waited.admitted


def test_refusals_carry_their_error() -> None:
    """The one that the caller gets."""
    told: list[Event] = []
    guard = make(told.append)
    with pytest.raises(QuotaExceeded) as first:
        call(guard, 101)
    with pytest.raises(ModelNotAllowed) as second:
        call(guard, 1, "huge")
    assert [event.error for event in told if isinstance(event, Refused)] == [
        first.value,
        second.value,
    ]
    assert len({event.id for event in told}) == 2


def test_a_late_settle_says_so() -> None:
    """The lease had ended: what it held was given back before."""
    told: list[Event] = []
    clock = FakeClock()
    guard = Guard(limits=["9 tokens/day"], clock=clock, lease_seconds=10, hooks=[told.append])
    with guard.hold(user="alice", input_tokens=5, output_tokens=0):
        clock.advance(11)
    assert isinstance(told[-1], Settled)
    assert told[-1].late


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_hook_that_fails_is_logged_and_changes_nothing(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The call goes on, the other hooks are told, and so is the log."""
    told: list[Event] = []

    def failing(event: Event) -> None:
        raise ZeroDivisionError

    guard = make(
        failing, told.append, failing, when_exceeded=[Fallback("small"), Wait(60, backoff=None)]
    )

    async def acall() -> None:
        async with guard.ahold(user="alice", model="large", input_tokens=80, output_tokens=0) as it:
            it.record(input_tokens=40)

    with caplog.at_level(logging.ERROR, "quotaguard"):
        for _ in range(3):
            asyncio.run(acall()) if mode == "async" else call(guard, 80)
    assert len(told) == 9
    assert len(caplog.records) == 18
    assert caplog.records[0].message == "a quotaguard hook failed on Admitted"
    assert guard.peek(user="alice", model="large")[0].left == pytest.approx(40)


def test_a_hook_that_is_interrupted_interrupts_the_call() -> None:
    """Ctrl-C in a hook is no error of the hook; what was reserved is given back."""

    def interrupted(event: Event) -> None:
        if isinstance(event, Admitted):
            raise KeyboardInterrupt

    guard = make(interrupted)
    with pytest.raises(KeyboardInterrupt):
        call(guard, 80)
    assert guard.peek(user="alice", model="large")[0].left == 100


def test_a_hook_may_use_the_guard() -> None:
    """It is called outside of every lock."""
    seen: list[float] = []

    def hook(event: Event) -> None:
        seen.append(guard.peek(user="alice", model="large")[0].left)

    guard = make(hook)
    call(guard, 80)
    assert seen == [20, 60]


def test_who_tells_nobody_is_false() -> None:
    """So that events for nobody need not be made."""
    assert not Teller([])
    assert Teller([print])


def test_who_listens_hears_every_guard_until_told_otherwise() -> None:
    """A notebook has guards from anywhere; what a cell cost is what all of them say."""
    heard: list[Event] = []
    first, second = make(), make()
    stop = listen(heard.append)
    try:
        call(first, 10)
        call(second, 10)
    finally:
        stop()
    call(first, 10)
    assert [type(event) for event in heard] == [Admitted, Settled] * 2
    assert not first.tell


def test_events_are_values() -> None:
    """They compare, and nothing can be set."""
    event = Waited("id", ALICE, "m", 1.0, True)
    assert event == Waited("id", ALICE, "m", 1.0, True)
    with pytest.raises(FrozenInstanceError):
        event.seconds = 2.0  # type: ignore[misc]
