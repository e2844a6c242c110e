"""The guard itself: who is meant, a ledger that is away, errands, events and ending."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from quotaguard import (
    BackendError,
    ConfigurationError,
    Fallback,
    Guard,
    ModelNotAllowed,
    QuotaExceeded,
    Tier,
    Usage,
    Wait,
    receipt,
)
from quotaguard.backends.memory import MemoryBackend
from quotaguard.clients import streams
from quotaguard.core.lease import Outcome
from quotaguard.core.ops import Answer, Op, Release, Settle
from quotaguard.events import BackendFailed, Event
from quotaguard.testing import FakeClock, disabled

CAPACITY = 1000
HELD: dict[str, Any] = {"user": "ann", "input_tokens": 10, "output_tokens": 20}


class Flaky:
    """A memory backend that is away when told to be, and notes what it is asked."""

    def __init__(self) -> None:
        self.memory = MemoryBackend(FakeClock())
        self.away = False
        self.asked: list[Op] = []
        self.closed: list[str] = []

    def execute(self, op: Op) -> Answer:
        """Carry it out, unless away."""
        self.asked.append(op)
        if self.away:
            raise BackendError("no route")
        return self.memory.execute(op)

    async def aexecute(self, op: Op) -> Answer:
        """The same for a task."""
        await asyncio.sleep(0)
        return self.execute(op)

    def close(self) -> None:
        """Note it."""
        self.closed.append("close")

    def kinds(self) -> list[str]:
        """The kinds of the operations since the last look."""
        kinds = [type(op).__name__ for op in self.asked]
        self.asked.clear()
        return kinds


def new_guard(backend: Any = "memory://", **more: Any) -> Guard:
    """A guard with one daily limit for each user, at a time that stands still."""
    limits = more.pop("limits", [f"{CAPACITY} tokens/day"])
    return Guard(limits=limits, backend=backend, clock=more.pop("clock", FakeClock()), **more)


def spent(guard: Guard, **who: Any) -> float:
    """What was drawn from a user's bucket."""
    return CAPACITY - guard.peek(**{"user": "ann"} | who)[0].left


# -- who ---------------------------------------------------------------------------------------


def test_callers_without_a_user_share_a_bucket_if_they_may() -> None:
    """Else they are an error, where a limit is per user."""
    guard = new_guard(anonymous="somebody")
    with guard.hold(input_tokens=10, output_tokens=0) as lease:
        assert lease.identity.user == "somebody"
    assert spent(guard, user=None) == spent(guard, user="somebody") == 10
    strict = new_guard()
    for asking in (strict.peek, lambda: strict.hold().__enter__()):
        with pytest.raises(ConfigurationError, match="no user: the limit of 1k tokens/day is per"):
            asking()
    everyone = new_guard(limits=["1000 tokens/day per global"])
    with everyone.hold(input_tokens=10, output_tokens=0):
        assert everyone.peek()[0].held == 10


def test_a_tier_is_needed_where_there_are_several() -> None:
    """A missing or unknown one is an error that names those there are."""
    tiers = [Tier("free", ["100 tokens/day"]), Tier("pro", ["1000 tokens/day"])]
    guard = Guard(tiers=tiers, clock=FakeClock())
    with pytest.raises(ConfigurationError, match=r"no tier: .* known: free, pro"):
        guard.peek(user="ann")
    with pytest.raises(ConfigurationError, match="unknown tier 'gold'; known: free, pro"):
        guard.hold(user="ann", tier="gold").__enter__()
    assert guard.peek(user="ann", tier="pro")[0].left == 1000
    chosen = Guard(tiers=tiers, default_tier="free", clock=FakeClock())
    assert chosen.peek(user="ann")[0].left == 100
    with pytest.raises(ConfigurationError, match="unknown tier 'gold'"):
        Guard(tiers=tiers, default_tier="gold")
    with pytest.raises(ConfigurationError, match="two tiers are named 'free'"):
        Guard(tiers=[Tier("free"), Tier("free")])
    not_tiers: Any = ["free"]
    with pytest.raises(ConfigurationError, match="tiers holds Tier objects, not 'free'"):
        Guard(tiers=not_tiers)


def test_an_orgs_limit_is_shared_by_its_users() -> None:
    """It does not apply to callers without one; a user of two orgs has two buckets."""
    guard = new_guard(limits=["1000 tokens/day", "1500 tokens/day per org"])
    for user in ("ann", "ben"):
        with guard.hold(user=user, org="acme", input_tokens=700, output_tokens=0):
            pass
        personal, shared = guard.peek(user=user, org="acme")
        assert (personal.owner, personal.left) == (("user", "acme", user), 300)
    assert (shared.owner, shared.left) == (("org", "acme"), 100)
    with pytest.raises(QuotaExceeded, match="org acme is over the limit"):
        guard.hold(user="carl", org="acme", input_tokens=200).__enter__()
    assert [state.left for state in guard.peek(user="ann")] == [1000]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"on_backend_error": "ignore"}, "'refuse', 'allow' or 'local', not 'ignore'"),
        ({"lease_seconds": 0}, "lease_seconds is a number > 0, not 0"),
        ({"output_guess": True}, "output_guess is a number > 0, not True"),
        ({"count": "never"}, "'exact' or 'when_close', not 'never'"),
        ({"anonymous": ""}, "anonymous is a non-empty string"),
        ({"backend": "ftp://here"}, "no backend for 'ftp://'"),
        ({"backend": object()}, "a backend is a URL"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_named(wrong: dict[str, Any], message: str) -> None:
    """The error says which value, and what would be right."""
    with pytest.raises(ConfigurationError, match=message):
        new_guard(**wrong)


def test_it_says_what_it_is() -> None:
    """Its tiers and its backend, no more."""
    assert repr(new_guard()) == "<Guard tiers=['default'] backend=MemoryBackend>"


# -- a ledger that is away ----------------------------------------------------------------------


def test_calls_are_refused_while_the_ledger_is_away() -> None:
    """The reservation may have been made all the same: it is released once the ledger is back."""
    seen: list[Event] = []
    backend = Flaky()
    guard = new_guard(backend, hooks=[seen.append])
    backend.away = True
    with pytest.raises(BackendError, match="no route"), guard.hold(**HELD):
        pytest.fail("the block ran")
    assert [event.outcome for event in seen if isinstance(event, BackendFailed)] == ["refused"]
    backend.away = False
    backend.kinds()
    assert spent(guard) == 0
    assert backend.kinds() == ["Release", "Peek"]


def test_calls_are_allowed_uncounted_if_the_guard_says_so() -> None:
    """They charge nothing; what they may have reserved is released once the ledger is back."""
    seen: list[Event] = []
    backend = Flaky()
    guard = new_guard(backend, on_backend_error="allow", hooks=[seen.append])
    backend.away = True
    with guard.hold(**HELD, model="big") as lease:
        assert (lease.model, lease.reserved, lease.left) == ("big", Usage(1, 10, 20), {})
        lease.record(input_tokens=5)
    assert [type(event).__name__ for event in seen] == ["BackendFailed", "Settled"]
    backend.away = False
    assert spent(guard) == 0
    assert isinstance(backend.asked[-2], Release)
    assert backend.asked[-2].id == lease.id


def test_a_settle_is_said_again() -> None:
    """What could not be charged when it was due is charged once, when the ledger is back."""
    seen: list[Event] = []
    backend = Flaky()
    guard = new_guard(backend, hooks=[seen.append])
    with guard.hold(**HELD) as lease:
        backend.away = True
        lease.record(input_tokens=3)
    assert [e.outcome for e in seen if isinstance(e, BackendFailed)] == ["queued"]
    assert backend.memory.open_reservations == 1
    backend.away = False
    assert (spent(guard), spent(guard)) == (3, 3)
    assert [op.amounts for op in backend.asked if isinstance(op, Settle)] == [(3,), (3,)]


def test_a_settle_is_not_lost_behind_errands() -> None:
    """A task that is cancelled as its block ends is charged, also where somebody's errands wait."""
    backend = Flaky()
    guard = new_guard(backend)

    async def main() -> None:
        async def call() -> None:
            async with guard.ahold(**HELD) as lease:
                lease.record(input_tokens=3)
                guard._later(Release("never-made"))  # somebody's errand waits
                running.set_result(None)

        running = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(call())
        await running
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await guard.apeek(user="ann"))[0][2:4] == (CAPACITY - 3, 0)

    asyncio.run(main())


def test_errands_are_not_tried_for_ever() -> None:
    """While the ledger stays away each operation tries one of them, and none is lost."""
    backend = Flaky()
    guard = new_guard(backend)

    async def main() -> None:
        for _ in range(3):
            async with guard.ahold(**HELD):
                backend.away = True
            backend.away = False
            guard._later(Release("never-made"))
        backend.away = True
        backend.kinds()
        for _ in range(2):
            with pytest.raises(BackendError):
                await guard.apeek(user="ann")
            tried = backend.kinds()
            assert len(tried) == 2
            assert tried[-1] == "Peek"
        backend.away = False
        assert (await guard.apeek(user="ann"))[0].left == CAPACITY - 90
        assert backend.memory.open_reservations == 0
        backend.kinds()
        await guard.apeek(user="ann")
        assert backend.kinds() == ["Peek"]

    asyncio.run(main())


def test_an_abandoned_lease_is_settled_by_the_next_operation() -> None:
    """What it used is worked out only then."""
    guard = new_guard()
    worked_out: list[str] = []

    def outcome() -> Outcome:
        worked_out.append("now")
        return Outcome(Usage(1, 4, 0))

    hold = guard.hold(**HELD)
    lease = hold.__enter__()
    assert lease.close()
    guard.abandon(lease, outcome)
    hold.__exit__(None, None, None)
    while guard.backend.open_reservations:  # the helper thread of other tests may be at it
        guard.run_errands()
    assert (spent(guard), worked_out) == (4, ["now"])


def test_closing_settles_what_was_left_behind() -> None:
    """Before the backend is closed; ``aclose`` awaits the backend's own, if it has one."""
    for way in ("close", "aclose", "backend's aclose"):
        backend = Flaky()
        guard = new_guard(backend)
        with guard.hold(**HELD):
            backend.away = True
        backend.away = False

        async def aclose(backend: Flaky = backend) -> None:
            backend.closed.append("aclose")

        if way == "backend's aclose":
            backend.aclose = aclose  # type: ignore[attr-defined]
        if way == "close":
            guard.close()
        else:
            asyncio.run(guard.aclose())
        assert backend.memory.open_reservations == 0
        assert backend.closed == ["aclose" if way == "backend's aclose" else "close"]


# -- events and the rest ------------------------------------------------------------------------


def test_hooks_see_a_calls_story_in_order() -> None:
    """Each event of a call has the reservation's id; waits are in seconds."""
    seen: list[Any] = []
    guard = Guard(
        limits=["60 tokens/minute for big", "10 tokens/minute for small"],
        when_exceeded=[Fallback("small"), Wait(45, backoff=None)],
        hooks=[seen.append],
        clock=FakeClock(),
    )

    def story(tokens: int) -> list[str]:
        seen.clear()
        with guard.hold(user="ann", model="big", input_tokens=tokens, output_tokens=0) as lease:
            assert all(event.id == lease.id for event in seen)
        return [type(event).__name__ for event in seen]

    assert story(60) == ["Admitted", "Settled"]
    assert story(10) == ["FellBack", "Admitted", "Settled"]
    assert (seen[0].served, seen[0].limit) == ("small", "60 tokens/minute for big")
    assert story(30) == ["Waiting", "Waited", "Admitted", "Settled"]
    assert (seen[0].limit, seen[0].seconds) == ("60 tokens/minute for big", 30.0)
    assert (seen[1].seconds, seen[1].admitted) == (30.0, True)
    with pytest.raises(QuotaExceeded) as refused:
        story(60)
    assert [type(event).__name__ for event in seen] == ["Refused"]
    assert seen[0].error is refused.value


def test_a_model_that_is_not_allowed_is_told_of() -> None:
    """A refusal by the tier is an event as well."""
    seen: list[Any] = []
    guard = Guard(tiers=[Tier("free", models=["small"])], hooks=[seen.append], clock=FakeClock())
    with pytest.raises(ModelNotAllowed) as refused:
        guard.hold(user="ann", model="big").__enter__()
    assert [event.error for event in seen] == [refused.value]


def test_a_hook_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, the next hook is told, and the call goes on."""
    seen: list[Event] = []

    def broken(event: Event) -> None:
        raise RuntimeError("broken hook")

    guard = new_guard(hooks=[broken, seen.append])
    with caplog.at_level(logging.ERROR, "quotaguard"), guard.hold(**HELD):
        pass
    assert [type(event).__name__ for event in seen] == ["Admitted", "Settled"]
    assert "a quotaguard hook failed on Settled" in caplog.text
    assert spent(guard) == 30


def test_disabled_admits_everything_uncounted() -> None:
    """Whatever the limits, the tier and the user; afterwards they hold again."""
    guard = Guard(tiers=[Tier("free", ["10 tokens/day"], models=["small"])], clock=FakeClock())
    with disabled(), guard.hold(model="big", input_tokens=500, output_tokens=1) as lease:
        assert (lease.model, lease.charges) == ("big", ())
    assert guard.peek(user="ann")[0].left == 10
    with pytest.raises(QuotaExceeded):
        guard.hold(user="ann", input_tokens=500).__enter__()


@pytest.mark.parametrize("other", [object(), {"id": "x"}, "text", SimpleNamespace(response=None)])
def test_what_is_no_guarded_calls_has_no_receipt(other: object) -> None:
    """The error names the type, never the content."""
    with pytest.raises(LookupError, match=f"no receipt: {type(other).__name__} is not from"):
        receipt(other)


def test_background_responses_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are forgotten first; their leases run out."""
    monkeypatch.setattr(streams, "BACKGROUND", 3)
    guard = new_guard()
    with guard.hold(**HELD) as lease:
        for number in range(5):
            streams.look_later(guard, f"resp_{number}", lease)
    assert list(guard.background) == ["resp_2", "resp_3", "resp_4"]
