"""Limits that warn, that downgrade early, and guards that only observe."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import pytest

from quotaguard import (
    ConfigurationError,
    Fallback,
    Guard,
    ModelNotAllowed,
    QuotaExceeded,
    QuotaWarning,
    Refuse,
    Tier,
    Wait,
)
from quotaguard.events import Approaching, Event, FellBack, Refused, Settled, Waiting
from quotaguard.testing import FakeClock


def spend(guard: Guard, tokens: int, model: str = "large", **who: Any) -> Any:
    """One call that uses what it reserves."""
    who.setdefault("user", "u")
    with guard.hold(model=model, input_tokens=tokens, output_tokens=0, **who) as lease:
        return lease


@pytest.mark.filterwarnings("default::quotaguard.QuotaWarning")
def test_each_share_warns_once_in_a_period(caplog: pytest.LogCaptureFixture) -> None:
    """By an event, in the log and as a warning, when a call takes the limit past it."""
    told: list[Event] = []
    clock = FakeClock()
    guard = Guard(limits=["100 tokens/day"], warn_at=(0.8, 0.5), hooks=[told.append], clock=clock)
    caplog.set_level(logging.WARNING, "quotaguard")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for tokens in (49, 1, 20, 15, 15):
            spend(guard, tokens)
    passed = [event for event in told if isinstance(event, Approaching)]
    assert [(event.share, event.left) for event in passed] == [(0.5, 50), (0.8, 15)]
    assert passed[0].limit == "100 tokens/day"
    assert [str(each.message) for each in warned] == [
        "50% of 100 tokens/day are used up (user u, org None)",
        "80% of 100 tokens/day are used up (user u, org None)",
    ]
    assert len(caplog.records) == 2
    clock.advance(86_400)
    with pytest.warns(QuotaWarning):
        spend(guard, 60)


def test_a_call_goes_even_where_warnings_are_errors() -> None:
    """A warning never costs a call."""
    guard = Guard(limits=["100 tokens/day"], warn_at=0.5)
    spend(guard, 90)
    assert guard.peek(user="u")[0].left == 10


def test_a_tier_warns_in_its_own_way() -> None:
    """Its shares go before the guard's."""
    told: list[Event] = []
    tiers = [
        Tier("quiet", ["100 tokens/day"], warn_at=()),
        Tier("early", ["100 tokens/day"], warn_at=0.1),
    ]
    guard = Guard(tiers=tiers, warn_at=0.8, hooks=[told.append])
    for tier in ("quiet", "early"):
        spend(guard, 90, tier=tier, user=tier)
    passed = [event for event in told if isinstance(event, Approaching)]
    assert [(event.identity.user, event.share) for event in passed] == [("early", 0.1)]


def early(at: float, small: str = "1M tokens/day for small") -> Guard:
    """A guard that falls back from that share on."""
    return Guard(
        limits=["100 tokens/day for large", small],
        when_exceeded=[Fallback("small", at=at)],
        clock=FakeClock(),
    )


def test_downgraded_early() -> None:
    """The last fifth is left alone as long as the small model has room."""
    guard = early(0.8)
    assert spend(guard, 70).model == "large"
    assert spend(guard, 10).model == "large"
    lease = spend(guard, 1)
    assert (lease.model, lease.because) == ("small", "100 tokens/day for large")
    assert guard.peek(user="u", model="large")[0].left == 20


def test_the_rest_is_for_when_the_small_model_has_no_room() -> None:
    """Rather the large one than a refusal; and then it is used up to the end."""
    guard = early(0.8, small="30 tokens/day for small")
    assert [spend(guard, 20).model for _ in range(6)] == [
        *("large",) * 4,
        "small",
        "large",
    ]
    with pytest.raises(QuotaExceeded) as caught:
        spend(guard, 20)
    assert caught.value.asked == 20


def test_observing_lets_everything_pass() -> None:
    """It decides and tells, and every call is served by the model that it asked for."""
    told: list[Event] = []
    guard = Guard(
        tiers=[
            Tier("free", ["100 tokens/day"], models=["large"]),
            Tier("pro", ["100 tokens/day for large"], when_exceeded=[Fallback("small")]),
            Tier("slow", ["10 tokens/second"], when_exceeded=[Wait(20), Refuse()]),
        ],
        mode="observe",
        hooks=[told.append],
        clock=FakeClock(),
    )
    observed = [
        (lease.model, lease.observed)
        for lease in (
            spend(guard, 80, tier="free"),
            spend(guard, 80, tier="free"),
            spend(guard, 8, model="other", tier="free"),
            spend(guard, 80, tier="pro"),
            spend(guard, 80, tier="pro"),
            spend(guard, 10, tier="slow"),
            spend(guard, 10, tier="slow"),
        )
    ]
    assert observed == [
        ("large", None),
        ("large", "refused"),
        ("other", "refused"),
        ("large", None),
        ("large", "downgraded"),
        ("large", None),
        ("large", "delayed"),
    ]
    refused = [event for event in told if isinstance(event, Refused)]
    assert [type(event.error) for event in refused] == [QuotaExceeded, ModelNotAllowed]
    assert not any(event.enforced for event in refused)
    assert [event.served for event in told if isinstance(event, FellBack)] == ["small"]
    assert [event.seconds for event in told if isinstance(event, Waiting)] == [1.0]
    assert [e.observed for e in told if isinstance(e, Settled)] == [o for _, o in observed]


def test_what_would_have_been_refused_is_not_charged() -> None:
    """The ledger goes on as if it had been enforced, so that what is told next is right too."""
    guard = Guard(limits=["100 tokens/day"], mode="observe", clock=FakeClock())
    spend(guard, 80)
    spend(guard, 80)
    assert spend(guard, 20).observed is None
    assert guard.peek(user="u")[0].left == 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"warn_at": 80}, "warn_at is a share such as 0.8, or some, not 80"),
        ({"warn_at": [0.5, 1.0]}, "warn_at is a share"),
        ({"warn_at": "most"}, "warn_at is a share .* not 'most'"),
        ({"mode": "dry"}, "mode is 'enforce' or 'observe', not 'dry'"),
        ({"identity_hash": "secret"}, "identity_hash is a secret of bytes or a callable"),
        ({"identity_hash": b""}, "identity_hash is a secret of bytes"),
        ({"tier_of": "pro"}, "tier_of is a callable of the identity, not 'pro'"),
        ({"tier_seconds": 0}, "tier_seconds is a number > 0, not 0"),
        ({"unknown_price": "free"}, "unknown_price is 'refuse' or 'warn', not 'free'"),
        ({"prices": ["gpt-4o"]}, "prices maps models to prices"),
        ({"tiers": Tier("free")}, "tiers is a list of Tier objects"),
        ({"hooks": print}, "hooks is a list of callables"),
        ({"hooks": [5]}, "a hook is a callable that takes an event, not 5"),
        ({"clock": 5}, "clock is a quotaguard.clock.Clock, not 5"),
        ({"limits": {"limit": "1 token/day"}}, "limits is a list such as"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], complaint: str) -> None:
    """With what would be right."""
    with pytest.raises(ConfigurationError, match=complaint):
        Guard(**options)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Fallback("m", at=0), "at is a share of the limit such as 0.8, not 0"),
        (lambda: Fallback("m", at=80), "at is a share"),
        (lambda: Fallback("m", at=True), "at is a share"),
        (lambda: Fallback("m", adapt={"n": {}}), "adapt maps models of the Fallback"),
        (lambda: Fallback("m", adapt={"m": 4}), "adapt maps models"),
        (lambda: Fallback("m", opt_out="alice"), "opt_out is a callable"),
        (lambda: Tier("t", when_not_allowed=Wait(3)), "when_not_allowed is Refuse"),
        (
            lambda: Tier("t", models=["a"], when_not_allowed=Fallback("b")),
            "when_not_allowed names 'b', which is not among its models: a",
        ),
        (lambda: Tier("t", warn_at=2), "tier 't': warn_at is a share"),
    ],
)
def test_wrong_policies_are_named(make: Any, complaint: str) -> None:
    """With what would be right."""
    with pytest.raises(ConfigurationError, match=complaint):
        make()
