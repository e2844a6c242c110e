"""What calls cost."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import genai_prices
import pytest
from genai_prices import data_snapshot
from hypothesis import given
from hypothesis import strategies as st

from quotaguard import ConfigurationError, Price, PriceUnknown, Usage
from quotaguard.pricing import FRESH, Prices, context_window, dearest, listed

NOW = datetime(2026, 11, 1, tzinfo=timezone.utc)
MODELS = [
    (provider.id, model.id)
    for provider in data_snapshot.get_snapshot().providers
    if provider.id in ("openai", "anthropic")
    for model in provider.models
]


def prices(overrides: dict[str, Any] | None = None, unknown: str = "refuse") -> Prices:
    """Prices on the first of November 2026."""
    return Prices(overrides or {}, unknown, NOW.timestamp)


@pytest.mark.parametrize("tokens", [10, 150_000, 210_000, 300_000])
def test_costs_are_those_of_the_list(tokens: int) -> None:
    """For each model priced by the token, cached and long requests included."""
    compared = 0
    for provider, model in MODELS:
        price = listed(model, "", NOW)
        if price is None:
            continue
        used = Usage(1, tokens, 777, tokens // 3, tokens // 4, 0, tokens // 8)
        theirs = genai_prices.Usage(
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            cache_read_tokens=used.cached_tokens,
            cache_write_tokens=used.cache_write_tokens,
            cache_write_1h_tokens=used.cache_write_1h_tokens,
        )
        said = genai_prices.calc_price(
            theirs, model, provider_id=provider, genai_request_timestamp=NOW
        )
        assert abs(price.nano_usd(used) - said.total_price * 10**9) <= Decimal("0.5"), model
        compared += 1
    assert compared > 80


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o",
        "gpt-4o-2024-11-20",
        "text-embedding-3-small",
        "claude-sonnet-4@20250514",
        "us.anthropic.claude-sonnet-4-20250514-v1:0",
        "anthropic.claude-3-haiku-20240307-v1:0",
    ],
)
def test_names_of_clouds_have_prices(name: str) -> None:
    """Snapshots, and what Bedrock and Vertex call a model."""
    assert prices().of(name).input > 0


def test_service_tiers_and_batches_have_prices_of_their_own() -> None:
    """Priority costs more than standard, a batch less."""
    found = prices()
    used = Usage(1, 1_000_000, 0)
    standard, priority, batch = (
        found.cost(used, "gpt-4o-mini", service) for service in ("", "priority", "batch")
    )
    assert standard is not None
    assert priority is not None
    assert batch is not None
    assert batch < standard < priority


def test_an_override_goes_before_the_list() -> None:
    """Patterns in their order; what they leave out costs as plain input does."""
    found = prices({"gpt-4o": {"input": 1, "output": 2.5}, "own-*": Price(Decimal("0.1"))})
    assert found.cost(Usage(1, 1000, 1000, 1000), "gpt-4o-2024-11-20") == 3_500_000
    assert found.cost(Usage(1, 1000, 1000), "own-small") == 100_000
    assert found.of("gpt-4o-mini").input == Decimal("0.15")


def test_an_unknown_price_is_never_zero(caplog: pytest.LogCaptureFixture) -> None:
    """It is refused with words, or taken to be the dearest, which is said once."""
    with pytest.raises(PriceUnknown, match=r"model 'mine': say it with Guard\(prices="):
        prices().of("mine")
    assert prices().cost(Usage(1, 5), "mine") is None
    careful = prices(unknown="warn")
    caplog.set_level(logging.WARNING, "quotaguard")
    top = dearest()
    assert top is not None
    for _ in range(3):
        assert careful.of("mine") == top
    assert [record.message for record in caplog.records] == [
        "no price is known for 'mine': the dearest is taken"
    ]
    assert all(top.input >= price.input for _, m in MODELS if (price := listed(m, "", NOW)))


def test_what_is_billed_by_the_hour_has_no_price_by_the_token() -> None:
    """It is unknown, not free."""
    assert listed("whisper-1", "", NOW) is None
    assert listed("tts-1", "", NOW) is None


def test_prices_follow_the_date() -> None:
    """A price is asked for again after a minute."""
    now = [0.0]
    asked: list[float] = []

    def lookup(model: str, service: str, at: datetime) -> Price:
        asked.append(at.timestamp())
        return Price(Decimal(len(asked)))

    found = Prices({}, "refuse", lambda: now[0], lookup)
    assert [found.of("m").input for _ in range(3)] == [1, 1, 1]
    now[0] = FRESH
    assert found.of("m").input == 2
    assert asked == [0.0, FRESH]


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**6)), max_size=20))
def test_costs_add_up_exactly(calls: list[tuple[int, int]]) -> None:
    """The sum of usages has the sum of the costs, in whole nano-dollars and as dollars."""
    price = Price(Decimal("0.15"), Decimal("0.6"))
    used = [Usage(1, i, o)._replace(nano_usd=price.nano_usd(Usage(1, i, o))) for i, o in calls]
    total = sum(used, start=Usage(nano_usd=0))
    assert total.nano_usd == sum(each.nano_usd or 0 for each in used)
    assert total.usd == sum((each.usd or Decimal(0) for each in used), Decimal(0))
    assert (total + Usage(1)).usd is None


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"input": -1}, "input=-1"),
        ({"input": "cheap"}, "input='cheap'"),
        ({"input": float("nan")}, "input=nan"),
        ({"input": 1, "output": None}, "output=None"),
        ({"output": 1}, "a price is like"),
        ({"input": 1, "per": 3}, "a price is like"),
        (0.15, "a price is like"),
    ],
)
def test_wrong_prices_are_named(given: Any, complaint: str) -> None:
    """With the model and what would be right."""
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        prices({"own": given})
    assert "prices['own']" in str(caught.value)


def test_wrong_arguments_are_named() -> None:
    """A list is no table of prices, and there are two ways with unknown ones."""
    with pytest.raises(ConfigurationError, match="prices maps models to prices, not 'cheap'"):
        Prices("cheap", "refuse", NOW.timestamp)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="'refuse' or 'warn', not 'free'"):
        prices(unknown="free")


def test_context_windows() -> None:
    """Known for the large providers' models, None for others."""
    assert context_window("gpt-4") == 8192
    assert context_window("claude-3-haiku-20240307") == 200_000
    assert context_window("mine") is None
