"""What providers' headers say of their limits, read as far as it can be read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotaguard.providers.anthropic import AnthropicProvider
from quotaguard.providers.openai import OpenAIProvider
from quotaguard.providers.told import DAY, MINUTE, Quota, Told, duration, retry_after

OPENAI = {
    "x-ratelimit-limit-requests": "500",
    "x-ratelimit-remaining-requests": "499",
    "x-ratelimit-reset-requests": "120ms",
    "x-ratelimit-limit-tokens": "30000",
    "x-ratelimit-remaining-tokens": "29000",
    "x-ratelimit-reset-tokens": "2s",
}
ANTHROPIC = {
    f"anthropic-ratelimit-{name}-{what}": value
    for name, limit, left in (
        ("requests", "50", "49"),
        ("input-tokens", "30000", "28000"),
        ("output-tokens", "8000", "8000"),
    )
    for what, value in (
        ("limit", limit),
        ("remaining", left),
        ("reset", "2026-01-01T00:00:04Z"),
    )
}


def quotas(headers: dict[str, str]) -> tuple[Quota, ...]:
    """What OpenAI's headers say."""
    return OpenAIProvider().told(headers).quotas


def test_openai() -> None:
    """Requests and tokens, each a minute."""
    assert OpenAIProvider().told(OPENAI) == Told(
        (Quota("requests", 500, 499), Quota("tokens", 30_000, 29_000))
    )


def test_anthropic() -> None:
    """What is read from the cache does not count; times of day are not needed, so nobody's clock
    has to be right.
    """
    assert AnthropicProvider().told(ANTHROPIC) == Told(
        (
            Quota("requests", 50, 49, cached=0),
            Quota("input_tokens", 30_000, 28_000, cached=0),
            Quota("output_tokens", 8_000, 8_000, cached=0),
        )
    )


@pytest.mark.parametrize(
    ("limit", "left", "reset", "period"),
    [
        ("200", "199", "7m12s", DAY),
        ("14400", "14370", "2m59.56s", DAY),
        ("10000", "9999", "8.64s", DAY),
        ("3", "0", "1m0s", MINUTE),
        ("5000", "0", "60", MINUTE),
        ("30000", "29999", "6ms", MINUTE),
        ("200", "200", "0s", MINUTE),
        ("200", "199", "tomorrow", MINUTE),
        ("200", "199", "1767225600", MINUTE),
    ],
)
def test_a_limit_a_day_is_told_from_one_a_minute(
    limit: str, left: str, reset: str, period: float
) -> None:
    """The headers of the smallest plans, and Groq's, do not say which it is."""
    headers = {
        "x-ratelimit-limit-requests": limit,
        "x-ratelimit-remaining-requests": left,
        "x-ratelimit-reset-requests": reset,
    }
    assert quotas(headers) == (Quota("requests", float(limit), float(left), period),)


def test_azure_says_the_period() -> None:
    """Its windows may be ten seconds long."""
    headers = {
        "x-ratelimit-limit-requests": "50",
        "x-ratelimit-remaining-requests": "45",
        "x-ratelimit-renewalperiod-requests": "10",
        "x-ratelimit-reset-requests": "1",
    }
    assert quotas(headers) == (Quota("requests", 50, 45, 10),)


def test_what_is_left_of_an_unknown_limit_says_nothing() -> None:
    """Some of Azure's deployments say no more; there is no bucket to compare it with."""
    assert quotas({"x-ratelimit-remaining-tokens": "19913"}) == ()


@pytest.mark.parametrize("value", ["", "0", "-1", "many", "nan", "inf", "1e999", "5, 5", "٣٤٥!"])
def test_what_is_no_limit_is_left_out(value: str) -> None:
    """A limit of 0 comes with answers that were served: it limits nothing. The others stay."""
    told = quotas({**OPENAI, "x-ratelimit-limit-tokens": value})
    assert told == (Quota("requests", 500, 499),)
    told = AnthropicProvider().told({**ANTHROPIC, "anthropic-ratelimit-requests-limit": value})
    assert [quota.metric for quota in told.quotas] == ["input_tokens", "output_tokens"]


@pytest.mark.parametrize("value", ["", "-1", "some", "nan"])
def test_what_is_left_may_be_unreadable(value: str) -> None:
    """The limit is still known."""
    told = quotas({**OPENAI, "x-ratelimit-remaining-tokens": value})
    assert told[1] == Quota("tokens", 30_000, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1m2.5s", 62.5), ("6ms", 0.006), ("30", 30.0), ("1h0m0s", 3600.0), ("1d2h", 93_600.0)],
)
def test_durations(text: str, seconds: float) -> None:
    """As OpenAI writes them; Azure's are plain seconds."""
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "s", "1x", "1m 2s", "-1s", "1.2.3", "3d", "1e3", "1767225600"]
)
def test_what_is_no_duration(text: str) -> None:
    """A point in time would be taken for 56 years."""
    assert duration(text) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": "20", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "20", "retry-after-ms": "soon"}, 20.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:30 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """The finer of the two, if it can be read."""
    assert retry_after(headers) == seconds
    assert OpenAIProvider().told(headers).again == seconds
    assert AnthropicProvider().told(headers).again == seconds


@pytest.mark.parametrize("provider_is_off_by", ["2020", "2026", "2031"])
def test_a_date_counts_from_the_date_of_the_answer(provider_is_off_by: str) -> None:
    """The provider's clock may be years off, or ours."""
    headers = {
        "date": f"Thu, 01 Jan {provider_is_off_by} 00:00:10 GMT",
        "retry-after": f"Thu, 01 Jan {provider_is_off_by} 00:00:30 GMT",
    }
    assert retry_after(headers) == 20.0


@given(st.dictionaries(st.sampled_from([*OPENAI, *ANTHROPIC, "retry-after", "date"]), st.text()))
def test_whatever_is_in_them_headers_break_nothing(headers: dict[str, str]) -> None:
    """Gateways write what they like."""
    for provider in (OpenAIProvider(), AnthropicProvider()):
        told = provider.told(headers)
        assert all(quota.limit > 0 for quota in told.quotas)
        assert told.again is None or told.again >= 0
