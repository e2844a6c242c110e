"""Tiers: limits, models and policies under a name."""

from __future__ import annotations

from typing import Any

import pytest

from quotaguard import ConfigurationError, Fallback, Guard, Limit, Refuse, Tier, Wait
from quotaguard.tiers import distinct


def test_a_tier() -> None:
    """Texts become limits, sequences tuples, and one policy a list of one."""
    tier = Tier("free", ["10 tokens/day", Limit(5, "requests", 60)], ["gpt-4o*"], Refuse())
    assert tier.limits == (Limit(10, "tokens", "day"), Limit(5, "requests", 60))
    assert tier.models == ("gpt-4o*",)
    assert tier.when_exceeded == (Refuse(),)
    assert Tier("free").when_exceeded is None
    assert Tier("free", when_exceeded=[]).when_exceeded == ()


def test_models_of_a_tier() -> None:
    """Patterns and snapshots; no list means all; a call without a model is always allowed."""
    tier = Tier("free", models=["gpt-4o-mini", "o*"])
    allowed = [m for m in ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", "o3", "gpt-4o", "") if m]
    assert [tier.allows(model) for model in allowed] == [True, True, True, False]
    assert tier.allows(None)
    assert Tier("all").allows("anything")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "a tier's name is a non-empty string, not ''"),
        ({"name": 5}, "a tier's name is a non-empty string, not 5"),
        ({"limits": "10 tokens/day"}, r"'free': limits is a list such as .*, not '10 tokens/day'"),
        ({"limits": Limit(1, "tokens", 60)}, "'free': limits is a list such as"),
        ({"limits": 5}, "'free': limits is a list such as .*, not 5"),
        ({"limits": None}, "'free': limits is a list such as .*, not None"),
        ({"limits": ["10 apples/day"]}, "tier 'free': unknown metric 'apples'"),
        ({"limits": [5]}, "cannot read the limit 5"),
        (
            {"limits": ["10 tokens/day", "20 tokens/day"]},
            "'10 tokens/day' and '20 tokens/day' limit the same thing; keep one",
        ),
        ({"models": "gpt-4o"}, "'free': models is a list of names, not 'gpt-4o'"),
        ({"models": [4]}, r"'free': models is a list of names, not \[4\]"),
        ({"models": [""]}, r"'free': models is a list of names, not \[''\]"),
        ({"models": 4}, "'free': models is a list of names, not 4"),
        ({"when_exceeded": "refuse"}, "when_exceeded is a list of policies, not 'refuse'"),
        ({"when_exceeded": [Refuse]}, r"holds Refuse\(\), Wait\(...\) and Fallback\(...\), not"),
        (
            {"when_exceeded": [Refuse(), Wait(5)]},
            r"nothing is tried after Refuse\(\), so Wait\(max_seconds=5.* is never reached",
        ),
    ],
)
def test_wrong_tiers(arguments: dict[str, Any], message: str) -> None:
    """Each is refused when it is made, by name."""
    with pytest.raises(ConfigurationError, match=message):
        Tier(**({"name": "free"} | arguments))


def test_which_limits_are_distinct() -> None:
    """The same thing may be limited for different owners, periods, models and zones."""
    texts = [
        "10 tokens/day", "10 tokens/day per org", "10 tokens/day per global", "10 tokens/week",
        "10 tokens/rolling day", "10 tokens/day for o3", "10 tokens/day in Asia/Tokyo",
    ]  # fmt: skip
    assert len(distinct(texts, "here")) == len(texts)
    assert len(distinct(iter(texts), "here")) == len(texts)
    limit = Limit(1, "tokens", 60)
    assert distinct([limit, limit], "here") == (limit, limit)


def test_tiers_are_values() -> None:
    """They compare and hash, and nothing can be set."""
    make = lambda: Tier("pro", ["1 tokens/day"], ["o3"], [Fallback("o3"), Refuse()])  # noqa: E731
    assert make() == make()
    assert hash(make()) == hash(make())
    with pytest.raises(AttributeError):
        make().name = "free"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("10 tokens/minute", "10 tokens/minute burst 5"),
        ("10 tokens/minute for a,b", "99 tokens/minute for b,a"),
        ("10 tokens/rolling day", "20 tokens/24 hours"),
    ],
)
def test_two_limits_of_one_thing_share_a_bucket(one: str, other: str) -> None:
    """However they are written; a tier may have one of them, and so may a tier and its guard."""
    with pytest.raises(ConfigurationError, match="limit the same thing; keep one"):
        Tier("free", [one, other])
    with pytest.raises(ConfigurationError, match="tier 'free' and the guard together"):
        Guard(tiers=[Tier("free", [one])], limits=[other])


def test_the_tier_is_chosen_by_name_or_by_default() -> None:
    """The only tier is the default; among several one must be said."""
    free, pro = Tier("free", ["1k tokens/day"]), Tier("pro", ["9k tokens/day"])
    assert Guard(tiers=[free]).peek(user="alice")[0].limit == free.limits[0]
    both = Guard(tiers=[free, pro])
    assert both.peek(user="alice", tier="pro")[0].limit == pro.limits[0]
    with pytest.raises(ConfigurationError, match=r"no tier: .* known: free, pro"):
        both.peek(user="alice")
    with pytest.raises(ConfigurationError, match="unknown tier 'gold'; known: free, pro"):
        both.peek(user="alice", tier="gold")
    chosen = Guard(tiers=[free, pro], default_tier="pro")
    assert chosen.peek(user="alice")[0].limit == pro.limits[0]
    with pytest.raises(ConfigurationError, match="two tiers are named 'free'"):
        Guard(tiers=[free, free])
