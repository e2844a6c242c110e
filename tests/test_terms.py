"""Which tier a caller has: named, looked up, changed meanwhile, and what is kept of names."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import Any

import pytest

from quotaguard import (
    ConfigurationError,
    Fallback,
    Guard,
    Identity,
    ModelNotAllowed,
    QuotaExceeded,
    Tier,
    acting_as,
)
from quotaguard.events import Event, FellBack
from quotaguard.testing import FakeClock

FREE = Tier("free", ["100 tokens/day"], models=["small"])
PRO = Tier("pro", ["1k tokens/day"])


def spend(guard: Guard, tokens: int = 1, **who: Any) -> Any:
    """One call that uses what it reserves."""
    who.setdefault("model", "small")
    with guard.hold(input_tokens=tokens, output_tokens=0, **who) as lease:
        return lease


class Plans:
    """A team's own database of plans."""

    def __init__(self, **plans: Any) -> None:
        self.plans = plans
        self.asked: list[Identity] = []

    def __call__(self, identity: Identity) -> Any:
        """The caller's plan, if it has one."""
        self.asked.append(identity)
        return self.plans.get(identity.user or "")


def test_a_callable_says_the_tier_and_its_answer_is_kept() -> None:
    """By name, as a tier of one's own, or None for the default; asked again after its time."""
    clock = FakeClock()
    plans = Plans(alice="pro", bob=PRO.overridden(["5k tokens/day", "9 requests/minute"]))
    guard = Guard(
        tiers=[FREE, PRO], default_tier="free", tier_of=plans, tier_seconds=30, clock=clock
    )
    limits = {
        user: [state.limit.text for state in guard.peek(user=user)]
        for user in ("alice", "bob", "carol", "alice")
    }
    assert limits == {
        "alice": ["1k tokens/day"],
        "bob": ["5k tokens/day", "9 requests/minute"],
        "carol": ["100 tokens/day"],
    }
    assert [identity.user for identity in plans.asked] == ["alice", "bob", "carol"]
    plans.plans["alice"] = "free"
    clock.advance(29)
    assert spend(guard, user="alice").identity.tier == "pro"
    clock.advance(1)
    assert spend(guard, user="alice").identity.tier == "free"
    assert len(plans.asked) == 4


def test_a_tier_that_is_named_is_not_asked_for() -> None:
    """Neither on a client nor by acting_as."""
    plans = Plans()
    guard = Guard(tiers=[FREE, PRO], tier_of=plans)
    assert spend(guard, user="u", tier="pro").identity.tier == "pro"
    with acting_as("u", tier="free"):
        assert spend(guard).identity.tier == "free"
    assert plans.asked == []


def test_an_asynchronous_callable() -> None:
    """Awaited from tasks; a blocking call says what would be right."""
    asked = 0

    async def tier_of(identity: Identity) -> str:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return "pro"

    guard = Guard(tiers=[FREE, PRO], tier_of=tier_of)

    async def work() -> list[Any]:
        tiers = []
        for _ in range(3):
            async with guard.ahold(user="u", input_tokens=1, output_tokens=0) as lease:
                tiers.append(lease.identity.tier)
        return tiers

    assert asyncio.run(work()) == ["pro"] * 3
    assert asked == 1
    with pytest.raises(ConfigurationError, match="coroutine function, which a blocking call"):
        spend(guard, user="somebody else")


def test_a_callable_that_fails_or_says_nonsense() -> None:
    """Its error is the caller's; nothing is reserved, and it is asked again."""
    answers: list[Any] = [OSError("no database"), 5, "gold", "pro"]

    def tier_of(identity: Identity) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    guard = Guard(tiers=[FREE, PRO], tier_of=tier_of)
    with pytest.raises(OSError, match="no database"):
        spend(guard, user="u")
    with pytest.raises(ConfigurationError, match="tier_of gives a tier or the name of one, not 5"):
        spend(guard, user="u")
    with pytest.raises(ConfigurationError, match="unknown tier 'gold'; known: free, pro"):
        spend(guard, user="u")
    assert spend(guard, user="u").identity.tier == "pro"
    assert guard.peek(user="u")[0].left == 999


def test_levels_carry_over_when_plans_change() -> None:
    """What was used stays used, whatever the new amount; a call under way is settled too."""
    guard = Guard(tiers=[FREE, PRO], default_tier="free", clock=FakeClock())
    spend(guard, 80, user="u")
    with guard.hold(user="u", model="small", input_tokens=10, output_tokens=0) as lease:
        guard.update(tiers=[Tier("free", ["200 tokens/day"]), PRO], default_tier="free")
        lease.record(input_tokens=5, output_tokens=0)
    assert guard.peek(user="u")[0].left == 200 - 85
    guard.update(tiers=[Tier("free", ["50 tokens/day"])])
    assert guard.peek(user="u")[0].left == -35
    with pytest.raises(QuotaExceeded):
        spend(guard, user="u")
    guard.update(limits=["5 requests/day"])
    assert [s.limit.text for s in guard.peek(user="u")] == ["50 tokens/day", "5 requests/day"]


def test_a_wrong_change_changes_nothing() -> None:
    """The old plans go on."""
    guard = Guard(tiers=[FREE], limits=["5 requests/day"])
    with pytest.raises(ConfigurationError, match="limit the same thing"):
        guard.update(limits=["6 tokens/day"])
    with pytest.raises(ConfigurationError, match="unknown tier 'gold'"):
        guard.update(default_tier="gold")
    assert [s.limit.text for s in guard.peek(user="u")] == ["100 tokens/day", "5 requests/day"]


def test_a_tier_overridden() -> None:
    """Limits about the same thing are replaced, others added, the rest stays."""
    base = Tier("enterprise", ["1M tokens/day", "$50/month per org"], models=["*"], warn_at=0.9)
    own = base.overridden(["3M tokens/day", "90 requests/minute"], models=["gpt-*"])
    assert [limit.text for limit in own.limits] == [
        "$50/month per org",
        "3M tokens/day",
        "90 requests/minute",
    ]
    assert (own.name, own.models, own.warn_at) == ("enterprise", ("gpt-*",), (0.9,))
    assert base.overridden() == base


def test_another_model_instead_of_one_that_the_tier_leaves_out() -> None:
    """Told with the reason, charged as itself; refused where the caller opts out."""
    told: list[Event] = []
    tier = Tier("free", ["100 tokens/day"], ["small"], when_not_allowed=Fallback("small"))
    guard = Guard(tiers=[tier], hooks=[told.append], clock=FakeClock())
    lease = spend(guard, 10, user="u", model="large")
    assert (lease.requested, lease.model) == ("large", "small")
    assert lease.because == "model 'large' is not part of tier 'free'; allowed: small"
    assert [(e.served, e.limit) for e in told if isinstance(e, FellBack)] == [("small", None)]
    with pytest.raises(QuotaExceeded):
        spend(guard, 100, user="u", model="large")
    proud = Fallback("small", opt_out=lambda identity: identity.user == "proud")
    guard = Guard(tiers=[Tier("free", [], ["small"], when_not_allowed=proud)])
    assert spend(guard, user="u", model="large").model == "small"
    with pytest.raises(ModelNotAllowed):
        spend(guard, user="proud", model="large")


def test_who_opts_out_of_a_downgrade_is_refused() -> None:
    """By a callable of the identity."""
    fallback = Fallback("small", opt_out=lambda identity: identity.org == "acme")
    guard = Guard(limits=["5 tokens/day for large"], when_exceeded=[fallback])
    assert spend(guard, 6, user="u", model="large").model == "small"
    with pytest.raises(QuotaExceeded):
        spend(guard, 6, user="u", org="acme", model="large")


@pytest.mark.parametrize("how", [b"a secret", lambda user: f"<{len(user)}>"])
def test_only_the_hash_of_a_name_is_seen(how: Any) -> None:
    """In events, errors and receipts; the callable for tiers sees the name itself."""
    told: list[Event] = []
    plans = Plans()
    guard = Guard(limits=["100 tokens/day"], identity_hash=how, hooks=[told.append], tier_of=plans)
    name = "alice@example.org"
    expected = (
        how(name)
        if callable(how)
        else hmac.new(how, name.encode(), hashlib.sha256).hexdigest()[:32]
    )
    with guard.hold(user=name, input_tokens=60, output_tokens=0) as lease:
        inner = spend(guard, 60)  # inside the hold: the same user, hashed once
    assert lease.identity.user == inner.identity.user == expected
    with pytest.raises(QuotaExceeded) as caught:
        spend(guard, 60, user=name)
    assert name not in str(caught.value)
    assert expected in str(caught.value)
    assert {event.identity.user for event in told} == {expected}
    assert plans.asked[0].user == name
    (given,) = guard.grant(10, user=name)
    assert given.left == 50
