"""The text that limits are written in, what it means, and what is refused."""

from __future__ import annotations

import pickle
import re
from typing import Any

import pytest
from hypothesis import given

from quotaguard import ConfigurationError, Limit, Usage
from quotaguard.metrics import METRICS
from quotaguard.models import matches
from tests.strategies import limits

GRAMMAR = [
    ("10k tokens/day", Limit(10_000, "tokens", "day")),
    ("90k tokens/minute", Limit(90_000, "tokens", 60)),
    ("20 requests/minute", Limit(20, "requests", 60)),
    ("100 tokens/second burst 10k", Limit(100, "tokens", 1, burst=10_000)),
    ("10k tokens/rolling day", Limit(10_000, "tokens", 86_400)),
    ("1M tokens/day per org", Limit(1_000_000, "tokens", "day", scope="org")),
    ("5k tokens/hour for gpt-4o*", Limit(5_000, "tokens", 3600, models=("gpt-4o*",))),
    ("10k tokens/day in Europe/Paris", Limit(10_000, "tokens", "day", tz="Europe/Paris")),
    ("1B tokens/month", Limit(1_000_000_000, "tokens", "month")),
    ("2.5m tokens/week", Limit(2_500_000, "tokens", "week")),
    ("10 k tokens / day", Limit(10_000, "tokens", "day")),
    ("10K TOKENS/DAY", Limit(10_000, "tokens", "day")),
    ("  10k tokens per day  ", Limit(10_000, "tokens", "day")),
    ("1,000,000 tokens/day", Limit(1_000_000, "tokens", "day")),
    ("1_000_000 tokens/day", Limit(1_000_000, "tokens", "day")),
    ("1,234.5 tokens/day", Limit(1234.5, "tokens", "day")),
    (".5 requests/s", Limit(0.5, "requests", 1)),
    ("0 tokens/day", Limit(0, "tokens", "day")),
    ("1 request/minute", Limit(1, "requests", 60)),
    ("1 token/sec", Limit(1, "tokens", 1)),
    ("7 input tokens/h", Limit(7, "input_tokens", 3600)),
    ("7 output_tokens/min", Limit(7, "output_tokens", 60)),
    ("20 requests/2 hours", Limit(20, "requests", 7200)),
    ("20 requests/1.5 min", Limit(20, "requests", 90)),
    ("20 requests/1 day", Limit(20, "requests", 86_400)),
    ("20 requests/3 weeks", Limit(20, "requests", 3 * 604_800)),
    ("1k tokens/rolling week", Limit(1_000, "tokens", 604_800)),
    ("1k tokens/rolling month", Limit(1_000, "tokens", 2_592_000)),
    ("1k tokens/w", Limit(1_000, "tokens", "week")),
    ("1k tokens/d", Limit(1_000, "tokens", "day")),
    ("5 requests per minute per global", Limit(5, "requests", 60, scope="global")),
    ("5 requests/minute per user", Limit(5, "requests", 60)),
    ("1k tokens/hour for a, b*,c", Limit(1_000, "tokens", 3600, models=("a", "b*", "c"))),
    (
        "9 tokens/second burst 1.5k per global for gpt-*",
        Limit(9, "tokens", 1, burst=1_500, scope="global", models=("gpt-*",)),
    ),
    (
        "1M tokens/month per org for claude-* in America/New_York",
        Limit(1e6, "tokens", "month", scope="org", models=("claude-*",), tz="America/New_York"),
    ),
]

WRONG = [
    ("", "''"),
    ("plenty", "'plenty'"),
    ("10k tokens", "'10k tokens'"),
    ("tokens/day", "'tokens/day'"),
    ("-5 tokens/day", "'-5 tokens/day'"),
    ("1e3 tokens/day", "'1e3 tokens/day'"),
    ("10q tokens/day", "unknown metric 'q_tokens'"),
    ("10,00 tokens/day", "'10,00 tokens/day'"),
    ("1.2.3 tokens/day", "'1.2.3 tokens/day'"),
    ("10 tokens/fortnight", "'10 tokens/fortnight'"),
    ("10 tokens/-2 hours", "'10 tokens/-2 hours'"),
    ("10 tokens/day per team", "'10 tokens/day per team'"),
    ("10 tokens/minute burst", "'10 tokens/minute burst'"),
    ("10 tokens/minute burst many", "'10 tokens/minute burst many'"),
    ("10 tokens/day for", "'10 tokens/day for'"),
    ("10 tokens/day in", "'10 tokens/day in'"),
    ("10 tokens/day for a,,b", "'10 tokens/day for a,,b'"),
    ("10 tokens/day\nand more", "'10 tokens/day\\nand more'"),
    ("٣ apples a day", "'٣ apples a day'"),
    (None, "None"),
    (10_000, "10000"),
    (b"10k tokens/day", "b'10k tokens/day'"),
    ("10 tokens/minute in Europe/Paris", "only calendar windows have a time zone"),
    ("10 tokens/rolling day in Europe/Paris", "'10 tokens/rolling day in Europe/Paris'"),
    ("10 tokens/2 days in UTC", "'10 tokens/2 days in UTC'"),
    ("10 tokns/day", "unknown metric 'tokns'; known: requests, tokens"),
    ("10 cached tokens/day", "unknown metric 'cached_tokens'"),
    ("10 tokens/day burst 20", "'rolling day' makes it a bucket"),
    ("10 tokens/day in Mars/Base", "unknown time zone 'Mars/Base'"),
    ("10 tokens/0 hours", "a period is a number of seconds > 0, not 0.0"),
    ("0 tokens/minute burst 5", "a limit of 0 blocks"),
]


@pytest.mark.parametrize(("text", "limit"), GRAMMAR, ids=[text for text, _ in GRAMMAR])
def test_the_grammar(text: str, limit: Limit) -> None:
    """Each form means what it reads as, and its own text means the same again."""
    assert Limit.parse(text) == limit
    assert Limit.parse(str(limit)) == limit


@pytest.mark.parametrize(("text", "words"), WRONG, ids=[repr(text) for text, _ in WRONG])
def test_other_texts_are_refused_by_name(text: Any, words: str) -> None:
    """The error says what was written, or which part of it is wrong."""
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        Limit.parse(text)


def test_every_example_of_the_error_can_be_read() -> None:
    """What the message holds up as right is right."""
    with pytest.raises(ConfigurationError) as refused:
        Limit.parse("plenty")
    examples = re.findall(r"'([^']+)'", str(refused.value).partition("examples:")[2])
    assert len(examples) >= 8
    assert len({Limit.parse(example).id for example in examples}) >= 6


@given(limits())
def test_text_round_trip(limit: Limit) -> None:
    """A limit's text says all that the limit says."""
    again = Limit.parse(str(limit))
    assert again == limit
    assert (again.id, again.rate, again.ceiling, again.text) == (
        limit.id,
        limit.rate,
        limit.ceiling,
        limit.text,
    )


@given(limits())
def test_a_pickled_limit_is_the_same(limit: Limit) -> None:
    """Limits travel between processes whole, with what was computed from them."""
    again = pickle.loads(pickle.dumps(limit))
    assert again == limit
    assert hash(again) == hash(limit)
    assert (again.id, again.text, again.is_window) == (limit.id, limit.text, limit.is_window)
    used = Usage(1, 2, 3, nano_usd=4)
    assert again.measure(used, None) == limit.measure(used, None)


def test_a_limit_is_returned_as_it_is() -> None:
    """`parse` takes either, so that lists may mix them."""
    limit = Limit(5, "requests", 60, on_expire="return_all")
    assert Limit.parse(limit) is limit


@pytest.mark.parametrize(
    ("metric", "value"),
    [("requests", 1), ("tokens", 25), ("input_tokens", 20), ("output_tokens", 5)],
)
def test_metrics_read_usage(metric: str, value: float) -> None:
    """A limit counts its own metric of what was used."""
    assert Limit(1, metric, 60).measure(Usage(1, 20, 5, 8, 2, 3), "m") == value
    assert metric in METRICS


def test_a_bucket_refills_continuously() -> None:
    """The amount per period comes back; the burst is the most it holds."""
    plain, bursting = Limit.parse("90 tokens/minute"), Limit.parse("90 tokens/minute burst 10")
    assert (plain.rate, plain.ceiling, plain.is_window) == (1.5, 90, False)
    assert (bursting.rate, bursting.ceiling) == (1.5, 10)


def test_a_window_does_not_trickle() -> None:
    """A calendar window comes back all at once, at its boundary."""
    window = Limit.parse("90 tokens/day")
    assert (window.rate, window.ceiling, window.is_window) == (0.0, 90, True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("10k tokens/day", "1M tokens/day"),
        ("10 tokens/minute", "20 tokens/minute burst 500"),
        ("5 requests/hour for b,a", "9 requests/hour for a,b"),
        ("60 tokens/60 seconds", "1 token/minute"),
    ],
)
def test_the_id_leaves_the_amount_out(one: str, other: str) -> None:
    """Who moves to a larger plan keeps what was used."""
    assert Limit.parse(one).id == Limit.parse(other).id


@pytest.mark.parametrize(
    "other",
    [
        "10k input tokens/day",
        "10k tokens/week",
        "10k tokens/rolling day",
        "10k tokens/day for gpt-4o",
        "10k tokens/day in Europe/Paris",
    ],
)
def test_the_id_tells_buckets_apart(other: str) -> None:
    """What is counted, for which models and when it resets make another bucket."""
    assert Limit.parse(other).id != Limit.parse("10k tokens/day").id


@pytest.mark.parametrize(
    ("model", "pattern", "fits"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o-mini", "gpt-4o", False),
        ("gpt-4o-mini", "gpt-4o*", True),
        ("gpt-4o-2024-08-06", "gpt-4o", True),
        ("gpt-4o-mini-2024-07-18", "gpt-4o", False),
        ("claude-sonnet-4-20250514", "claude-sonnet-4", True),
        ("claude-sonnet-4-20250514-v1", "claude-sonnet-4", False),
        ("claude-sonnet-4-2025", "claude-sonnet-4", False),
        ("gpt-4o", "gpt-4o-2024-08-06", False),
        ("GPT-4o", "gpt-4o", False),
        ("o1", "o[13]", True),
        ("o2", "o[13]", False),
        ("o3", "o?", True),
        ("anything", "*", True),
    ],
)
def test_models_match_by_pattern_and_by_dated_snapshot(
    model: str, pattern: str, fits: bool
) -> None:
    """A name stands for its dated snapshots, never for its smaller sisters."""
    assert matches(model, pattern) is fits
    assert Limit(1, "tokens", 60, models=("other", pattern)).covers(model) is fits


def test_covers_without_a_model() -> None:
    """A call without a model counts toward limits for all models only."""
    assert Limit.parse("5 requests/minute").covers(None)
    assert not Limit.parse("5 requests/minute for *").covers(None)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"amount": -1}, "amount is a number >= 0, not -1"),
        ({"amount": float("nan")}, "not nan"),
        ({"amount": float("inf")}, "not inf"),
        ({"amount": True}, "not True"),
        ({"amount": "10k"}, "not '10k'"),
        ({"metric": "words"}, "unknown metric 'words'; known: requests, tokens"),
        ({"period": 0}, "seconds > 0, not 0"),
        ({"period": float("inf")}, "not inf"),
        ({"period": None}, "not None"),
        ({"period": "hour"}, "a window is one of day, week, month, not 'hour'"),
        ({"period": "day", "burst": 5}, "a calendar window (day) has no burst"),
        ({"period": "day", "tz": "Nowhere"}, "unknown time zone 'Nowhere'"),
        ({"burst": -1}, "a burst is a number >= 0, not -1"),
        ({"burst": "5k"}, "not '5k'"),
        ({"amount": 0, "burst": 5}, "a limit of 0 blocks"),
        ({"scope": "team"}, "a scope is user, org or global, not 'team'"),
        ({"models": "gpt-4o"}, "models is a tuple of patterns such as 'gpt-4o*', not 'gpt-4o'"),
        ({"models": ["gpt-4o"]}, "not ['gpt-4o']"),
        ({"models": ("",)}, "not ('',)"),
        ({"on_expire": "keep"}, "on_expire is keep_input, keep_all or return_all, not 'keep'"),
    ],
)
def test_wrong_values_are_named(wrong: dict[str, Any], words: str) -> None:
    """The error says the value and what would be right."""
    with pytest.raises(ConfigurationError, match=re.escape(words)):
        Limit(**{"amount": 10, "metric": "tokens", "period": 60, **wrong})


@pytest.mark.parametrize(
    ("text", "draws"),
    [
        ("9M tokens/minute per global drawing 1%", 0.01),
        ("9M tokens/day per org for gpt-4o in Europe/Paris drawing 20k", 20_000.0),
        ("9k requests/minute per org drawing 0.7%", 0.007),
        ("9k requests/minute per org", 0.0),
        ("$50/day per org drawing 2%", 0.02),
    ],
)
def test_drawing_ahead_is_written(text: str, draws: float) -> None:
    """The string form, there and back; the bucket is the same one with and without."""
    limit = Limit.parse(text)
    assert limit.draw_ahead == draws
    assert str(limit) == text
    assert limit.id == Limit.parse(text.partition(" drawing")[0]).id


@pytest.mark.parametrize(
    ("value", "scope", "said"),
    [
        (-1, "global", "-1"),
        (True, "org", "True"),
        (0.1, "user", "own limit"),
        ("1%", "org", "'1%'"),
    ],
)
def test_drawing_ahead_is_for_shared_limits(value: Any, scope: Any, said: str) -> None:
    """The message says what would be right."""
    with pytest.raises(ConfigurationError, match=said):
        Limit(100, "tokens", 60.0, scope=scope, draw_ahead=value)
