"""Texts that are no limits, however they are written."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotaguard import ConfigurationError, Limit


@given(st.text(max_size=60) | st.from_regex(r"[\d.,_kmb]{1,9} [a-z ]{1,9}/[a-z ,*]{1,30}"))
def test_any_text(text: str) -> None:
    """It is a limit, whose text means the same, or a ConfigurationError."""
    with suppress(ConfigurationError):
        limit = Limit.parse(text)
        assert Limit.parse(str(limit)) == limit


@pytest.mark.parametrize(
    "text",
    [
        "1 tokens/day for " + "a," * 5_000 + "a !",
        "1" * 20_000,
        "1," * 10_000,
        "9 " + "a" * 20_000 + "/",
        "9 tokens" + " " * 20_000 + "!",
    ],
)
def test_long_nonsense_is_refused_quickly(text: str) -> None:
    """No text makes the grammar backtrack for long."""
    began = time.process_time()
    with pytest.raises(ConfigurationError):
        Limit.parse(text)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "text",
    [
        "1,5k tokens/day",
        "1.5.2k tokens/day",
        "10,00 tokens/day",
        "1_0 tokens/day",
        "1,0000 tokens/d",
    ],
)
def test_a_comma_is_never_taken_for_a_decimal_point(text: str) -> None:
    """A tenfold or thousandfold quota by mistake is worse than an error."""
    with pytest.raises(ConfigurationError, match="cannot read the limit"):
        Limit.parse(text)


@pytest.mark.parametrize(
    "amount", [1_234_567, 12_345_678_900, 1e-7, 0.1 + 0.2, 123_456_789.125, 10**15 + 1, 2**53]
)
def test_amounts_are_written_in_full(amount: float) -> None:
    """Without an exponent, to the last digit: an error that shows a limit shows that limit."""
    limit = Limit(amount, "tokens", "day")
    assert "e" not in str(limit).partition(" ")[0]
    assert Limit.parse(str(limit)) == limit
