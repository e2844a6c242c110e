"""Grants, resets and looking at everything: what operators do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quotaguard import BackendError, ConfigurationError, Guard, QuotaExceeded, Tier, acting_as
from quotaguard.backends.memory import MemoryBackend
from quotaguard.core.ops import Answer, Op
from quotaguard.events import Adjusted, Event
from quotaguard.testing import FakeClock

LIMITS = [
    "1000 tokens/day",
    "500 tokens/day for gpt-4o",
    "10 requests/day",
    "5k tokens/day per org",
]


def new_guard(**more: Any) -> Guard:
    """Two tiers, of which pro has limits of every kind."""
    tiers = [Tier("free", ["100 tokens/day"]), Tier("pro", LIMITS)]
    return Guard(tiers=tiers, default_tier="pro", clock=FakeClock(), **more)


def spend(guard: Guard, tokens: int, **who: str | None) -> None:
    """A call of gpt-4o that uses so many."""
    asked: dict[str, Any] = {"user": "ann", "org": "acme", "model": "gpt-4o", **who}
    with guard.hold(**asked, input_tokens=tokens, output_tokens=0):
        pass


def lefts(guard: Guard, **who: Any) -> list[float]:
    """What all buckets of a user have left."""
    return [state.left for state in guard.peek(**{"user": "ann", "org": "acme"} | who)]


def test_an_orgs_own_buckets_can_be_looked_at() -> None:
    """An org is nobody's user: what its users share is seen without naming one of them."""
    guard = new_guard()
    spend(guard, 300)
    (shared,) = guard.peek(org="acme", everything=True)
    assert (shared.owner, shared.left) == (("org", "acme"), 4_700)


def test_a_grant_goes_to_every_bucket_of_the_metric() -> None:
    """Those for one model too; not to other metrics, other owners or above the capacity."""
    guard = new_guard()
    spend(guard, 400)
    done = guard.grant(300, user="ann", org="acme")
    assert [(a.limit.text, a.given, a.left) for a in done] == [
        ("1k tokens/day", 300, 900),
        ("500 tokens/day for gpt-4o", 300, 400),
    ]
    assert lefts(guard, everything=True) == [900, 400, 9, 4600]
    assert [a.given for a in guard.grant(300, user="ann", org="acme")] == [100, 100]
    assert [a.left for a in guard.grant(5, user="ann", org="acme", metric="requests")] == [10]
    assert [a.owner for a in guard.grant(1, org="acme")] == [("org", "acme")]
    assert lefts(guard, everything=True) == [1000, 500, 10, 4601]


def test_a_fine_takes_away() -> None:
    """A negative grant leaves a debt that refuses the next call."""
    guard = new_guard()
    assert guard.grant(-150, user="ann", tier="free")[0].left == -50
    with pytest.raises(QuotaExceeded):
        spend(guard, 1, org=None, tier="free")


def test_a_reset_fills_all() -> None:
    """All metrics, or the one that is named; an org's buckets are its own."""
    guard = new_guard()
    spend(guard, 400)
    assert [a.given for a in guard.reset(user="ann", org="acme", metric="requests")] == [1]
    assert [a.given for a in guard.reset(user="ann", org="acme")] == [400, 400, 0]
    assert lefts(guard, everything=True) == [1000, 500, 10, 4600]
    assert [(a.given, a.left) for a in guard.reset(org="acme")] == [(400, 5000)]


def test_async_twins_do_the_same() -> None:
    """And so does peeking at everything."""
    guard = new_guard()
    spend(guard, 400)

    async def main() -> None:
        assert [a.given for a in await guard.agrant(10, user="ann", org="acme")] == [10, 10]
        assert [a.given for a in await guard.areset(user="ann", org="acme")] == [390, 390, 1]
        found = await guard.apeek(user="ann", org="acme", everything=True)
        assert [state.left for state in found] == [1000, 500, 10, 4600]

    asyncio.run(main())


def test_peek_by_model_is_as_it_was() -> None:
    """Without a model limits for some models are left out, with one those that cover it remain."""
    guard = new_guard()
    spend(guard, 400)
    assert lefts(guard) == [600, 9, 4600]
    assert lefts(guard, model="gpt-4o") == [600, 100, 9, 4600]
    assert lefts(guard, model="o3") == [600, 9, 4600]
    assert len(guard.peek(user="ann", everything=True)) == 3


def test_who_acts_does_not_matter() -> None:
    """An operator's own request does not make the grant its own."""
    guard = new_guard()
    spend(guard, 100)
    with acting_as("operator", org="staff", tier="free"):
        assert guard.reset(user="ann", org="acme", metric="tokens")[0].given == 100


def test_it_is_told() -> None:
    """The event holds what an audit record needs."""
    told: list[Event] = []
    guard = new_guard(hooks=[told.append])
    guard.grant(-5, user="ann", metric="requests", by="ops on call", id="ticket 7")
    (event,) = told
    assert isinstance(event, Adjusted)
    assert (event.id, event.by, event.identity.user) == ("ticket 7", "ops on call", "ann")
    assert (event.limits, event.given, event.left) == (("10 requests/day",), (-5.0,), (5.0,))
    assert event.model is None


class LosesReplies:
    """A memory backend whose first answer gets lost."""

    def __init__(self) -> None:
        self.memory = MemoryBackend(FakeClock())
        self.lost = False

    def execute(self, op: Op) -> Answer:
        """Carry it out; the first time nobody learns of it."""
        answer = self.memory.execute(op)
        if not self.lost:
            self.lost = True
            raise BackendError("the reply was lost")
        return answer

    async def aexecute(self, op: Op) -> Answer:
        """The same for a task."""
        return self.execute(op)

    def close(self) -> None:
        """Nothing to give back."""


def test_a_grant_that_is_repeated_counts_once() -> None:
    """The same id after a lost reply changes nothing; another one does."""
    guard = Guard(limits=["100 tokens/day"], backend=LosesReplies(), clock=FakeClock())
    for _ in range(2):
        try:
            done = guard.grant(-30, user="ann", id="invoice 12")
        except BackendError:
            continue
    assert [(a.given, a.left) for a in done] == [(-30, 70)]
    assert guard.peek(user="ann")[0].left == 70
    assert guard.grant(-30, user="ann")[0].left == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"amount": 0, "user": "ann"}, "a finite number other than 0, not 0"),
        ({"amount": float("nan"), "user": "ann"}, "not nan"),
        ({"amount": float("inf"), "user": "ann"}, "not inf"),
        ({"amount": 10**400, "user": "ann"}, "a finite number"),
        ({"amount": "5k", "user": "ann"}, "not '5k'"),
        ({"amount": True, "user": "ann"}, "not True"),
        ({"amount": 5}, "whose buckets"),
        ({"amount": 5, "user": ""}, "user is a non-empty string or None, not ''"),
        ({"amount": 5, "user": "ann", "id": ""}, "id is a non-empty string"),
        ({"amount": 5, "user": "ann", "by": None}, "by is the operator's name, not None"),
        ({"amount": 5, "user": "ann", "metric": "token"}, "unknown metric 'token'; known: "),
        ({"amount": 5, "user": "ann", "tier": "gold"}, "unknown tier 'gold'; known: free, pro"),
        (
            {"amount": 5, "org": "acme", "tier": "free"},
            "tier 'free' has no limit on tokens",
        ),
        (
            {"amount": 5, "user": "ann", "metric": "output_tokens"},
            "on output tokens per user",
        ),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    """Each says what is wrong, and nothing is changed."""
    guard = new_guard()
    with pytest.raises(ConfigurationError, match=message):
        guard.grant(**arguments)
    assert lefts(guard) == [1000, 10, 5000]


def test_a_tier_without_limits_has_nothing_to_reset() -> None:
    """It says so."""
    guard = Guard(tiers=[Tier("staff")], clock=FakeClock())
    with pytest.raises(ConfigurationError, match="tier 'staff' has no limit per user"):
        guard.reset(user="ann")
