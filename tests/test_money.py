"""Limits in US dollars, through the guard."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotaguard import (
    Fallback,
    Guard,
    Limit,
    Price,
    PriceUnknown,
    QuotaExceeded,
    RequestTooLarge,
    Tier,
    Usage,
)
from quotaguard.events import Event, Refused, Settled
from quotaguard.testing import FakeClock

PRICES = {
    "large": Price(Decimal("2.5"), Decimal(10), cached=Decimal("1.25")),
    "small": Price(Decimal("0.15"), Decimal("0.6")),
}


def guard(*limits: str, **options: object) -> Guard:
    """A guard with prices of its own."""
    return Guard(limits=limits, prices=PRICES, clock=FakeClock(), **options)  # type: ignore[arg-type]


def test_dollars_are_reserved_and_settled() -> None:
    """Reserved by the estimate, settled by what was used, in dollars wherever people see them."""
    quota = guard("$1/day")
    with quota.hold(user="u", model="large", input_tokens=100_000, output_tokens=50_000) as lease:
        (state,) = quota.peek(user="u")
        assert (state.left, state.held) == (0.25, 0.75)
        lease.record(input_tokens=100_000, output_tokens=10_000, cached_tokens=40_000)
    (state,) = quota.peek(user="u")
    assert state.left == pytest.approx(1 - (0.15 + 0.05 + 0.1))
    assert lease.used is not None
    assert lease.used.usd == Decimal("0.3")
    assert lease.left == {"$1/day": pytest.approx(0.7)}


def test_a_refusal_speaks_of_dollars() -> None:
    """What was asked, what is left, and when it would fit."""
    quota = guard("$0.30/day")
    with quota.hold(user="u", model="large", input_tokens=100_000, output_tokens=0):
        pass
    with pytest.raises(QuotaExceeded) as caught:
        quota.hold(user="u", model="large", input_tokens=40_000, output_tokens=0).__enter__()
    error = caught.value
    assert (error.asked, error.capacity, error.metric) == (0.1, 0.3, "US dollars")
    assert error.left == pytest.approx(0.05)
    assert "the limit of $0.3/day: the request needs 0.1 US dollars, 0.05 of 0.3" in str(error)
    with pytest.raises(RequestTooLarge):
        quota.hold(user="u", model="large", input_tokens=1_000_000, output_tokens=0).__enter__()


def test_a_downgrade_where_the_money_is_short() -> None:
    """Each candidate at its own price."""
    quota = guard("$0.10/day", when_exceeded=[Fallback("small")])
    with quota.hold(user="u", model="large", input_tokens=100_000, output_tokens=0) as lease:
        assert lease.model == "small"
        assert lease.because == "$0.1/day"
    assert quota.peek(user="u")[0].left == pytest.approx(0.085)


def test_an_unknown_price_refuses_the_call() -> None:
    """Only where a limit needs it; nothing stays reserved."""
    quota = guard("$1/day", "5 requests/day")
    with pytest.raises(PriceUnknown, match="'mine'"):
        quota.hold(user="u", model="mine", input_tokens=1).__enter__()
    assert [state.left for state in quota.peek(user="u")] == [1.0, 5.0]
    with guard("5 requests/day").hold(user="u", model="mine", input_tokens=1):
        pass
    careful = guard("$1/day", unknown_price="warn")
    with careful.hold(user="u", model="mine", input_tokens=1000, output_tokens=0):
        pass
    assert careful.peek(user="u")[0].left < 1.0


def test_events_say_what_it_cost() -> None:
    """With and without a limit on money; a refusal says what the call would have cost."""
    told: list[Event] = []
    quota = guard("100k tokens/day", hooks=[told.append], when_exceeded=[Fallback("small")])
    with quota.hold(user="u", model="large", input_tokens=80_000, output_tokens=0):
        pass
    with pytest.raises(QuotaExceeded):
        quota.hold(user="u", model="large", input_tokens=40_000, output_tokens=0).__enter__()
    settled = next(event for event in told if isinstance(event, Settled))
    refused = next(event for event in told if isinstance(event, Refused))
    assert settled.reserved.usd == settled.reserved.usd == Decimal("0.2")
    assert settled.in_full == 200_000_000
    assert refused.estimated.usd == Decimal("0.1")


def test_a_downgraded_call_says_what_the_other_model_would_have_cost() -> None:
    """By what was used: that is the saving."""
    told: list[Event] = []
    tier = Tier("pro", ["1k tokens/day for large"], when_exceeded=[Fallback("small")])
    quota = Guard(tiers=[tier], prices=PRICES, clock=FakeClock(), hooks=[told.append])
    with quota.hold(user="u", model="large", input_tokens=10_000, output_tokens=0) as lease:
        lease.record(input_tokens=10_000, output_tokens=1000)
    settled = next(event for event in told if isinstance(event, Settled))
    assert settled.used is not None
    assert settled.used.usd == Decimal("0.0021")
    assert settled.in_full == 35_000_000
    assert settled.because == "1k tokens/day for large"


calls = st.tuples(
    st.sampled_from(["large", "small"]),
    st.integers(0, 200_000),
    st.integers(0, 50_000),
    st.integers(0, 250_000),
    st.integers(0, 60_000),
    st.booleans(),
)


@given(st.lists(calls, max_size=40), st.lists(st.floats(0.001, 2.0), max_size=3))
def test_money_is_conserved(
    made: list[tuple[str, int, int, int, int, bool]], grants: list[float]
) -> None:
    """Whatever is called, refused, downgraded and granted: the bucket lacks what was paid, to the
    nano-dollar.
    """
    quota = guard("$1/day", when_exceeded=[Fallback("small")])
    paid = 0
    for model, asked_in, asked_out, used_in, used_out, said in made:
        try:
            with quota.hold(
                user="u", model=model, input_tokens=asked_in, output_tokens=asked_out
            ) as lease:
                if said:
                    lease.record(input_tokens=used_in, output_tokens=used_out)
        except QuotaExceeded:
            continue
        price = PRICES[lease.model or ""]
        used = lease.used or Usage(1, asked_in, asked_out)
        paid += price.nano_usd(used)
        assert lease.used is None or lease.used.nano_usd == price.nano_usd(used)
    assert round(quota.peek(user="u")[0].left * 1e9) == 10**9 - paid
    for amount in grants:
        (given,) = quota.grant(amount, user="u", metric="usd")
        paid -= round(given.given * 1e9)
    assert round(quota.peek(user="u")[0].left * 1e9) == pytest.approx(10**9 - paid, abs=len(grants))


def test_the_text_of_a_limit_in_dollars() -> None:
    """Reads as it is written."""
    assert [str(Limit.parse(text)) for text in ("$5/day", "100 usd/month per org")] == [
        "$5/day",
        "$100/month per org",
    ]
    assert Limit.parse("$1.5k/month").ceiling == 1.5e12
