"""Reports: their sums are those of the entries, to the token and to the nano-dollar."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotaguard import (
    AsyncGuardedOpenAI,
    ConfigurationError,
    Entry,
    Fallback,
    Guard,
    GuardedAnthropic,
    GuardedOpenAI,
    Price,
    PriceUnknown,
    QuotaExceeded,
    Tier,
    Usage,
    acting_as,
)
from quotaguard.report import report
from quotaguard.savings import saved_by_blocking
from quotaguard.testing import FakeClock, FakeProvider, Reply
from quotaguard.testing.clock import START
from tests.books import call, entries, guard_of

GROUPS = ("user", "org", "tier", "model", "requested", "day", "hour")


@given(st.lists(entries, max_size=20), st.lists(st.sampled_from(GROUPS), unique=True))
def test_sums_are_exact(all_of_them: list[Entry], by: list[str]) -> None:
    """Whatever the entries and groups: the total is their sum, and so is the sum of the rows."""
    found = report(all_of_them, by, tz="Europe/Paris")
    calls = [entry for entry in all_of_them if entry.outcome == "served"]
    refused = [entry for entry in all_of_them if entry.outcome == "refused"]
    charged = [entry.charged for entry in calls]
    total = found.total
    assert (total.calls, total.refused) == (len(calls), len(refused))
    assert total.input_tokens == sum(usage.input_tokens for usage in charged)
    assert total.output_tokens == sum(usage.output_tokens for usage in charged)
    assert total.nano_usd == sum(usage.nano_usd or 0 for usage in charged)
    assert total.unpriced == sum(usage.nano_usd is None for usage in charged)
    assert Fraction(total.cost) * 10**9 == total.nano_usd
    saved = [entry.saved for entry in calls + refused]
    assert Fraction(total.saved) * 10**9 == sum(each or 0 for each in saved)
    assert total.unpriced_saved == saved.count(None)
    seconds = sum(Fraction(entry.waited) for entry in calls + refused)
    assert total.waited_seconds == float(seconds)
    for name in ("calls", "requests", "input_tokens", "output_tokens", "cached_tokens", "refused",
                 "nano_usd", "unpriced", "guessed", "downgraded", "waited", "nano_usd_refused",
                 "nano_usd_downgraded", "unpriced_saved", "would_refuse"):  # fmt: skip
        assert getattr(total, name) == sum(getattr(row, name) for row in found.rows.values())
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()
    assert len(str(found).splitlines()) == 2 + (len(found.rows) if by else 0)


def test_money_is_conserved() -> None:
    """What was paid and what was saved is what all would have cost with the model asked for."""
    guard = guard_of("memory://", when_exceeded=Fallback("small"))
    for tokens in (80, 80, 80, 80, 7):
        with suppress(QuotaExceeded):
            call(guard, tokens)
    total = guard.report().total
    assert (total.calls, total.downgraded, total.refused) == (3, 1, 2)
    in_full = (40 + 40 + 3 + 80 + 80) * 10_000
    assert total.nano_usd + total.nano_usd_refused + total.nano_usd_downgraded == in_full


def test_an_unknown_price_is_not_free() -> None:
    """It is counted apart, also in what was saved."""
    guard = Guard(limits=["10 tokens/day"], journal="memory://", clock=FakeClock())
    call(guard, 10, "nobody knows")
    with suppress(QuotaExceeded):
        call(guard, 10, "nobody knows")
    total = guard.report(by=()).total
    assert (total.nano_usd, total.unpriced, total.unpriced_saved) == (0, 1, 1)
    assert str(guard.report(by=())).split("\n")[0].split() == [
        "calls", "input", "output", "cost", "unpriced", "refused", "downgraded", "saved", "saved?",
    ]  # fmt: skip


def test_what_nobody_can_tell_counts_as_reserved() -> None:
    """And is counted as a guess."""
    guard = guard_of("memory://")
    with guard.hold(user="alice", model="small", input_tokens=10, output_tokens=5):
        pass
    total = guard.report().total
    assert (total.guessed, total.input_tokens, total.output_tokens) == (1, 10, 5)
    assert total.cost == Decimal("0.00002")


def test_periods_and_groups() -> None:
    """The current day, week or month of a time zone, or any span."""
    guard = guard_of("memory://")
    for hours in (0, 10, 14, 24):
        guard.clock.advance(3600 * hours)  # type: ignore[attr-defined]
        call(guard, 10)
    # Thursday 1st at 0 and 10, Friday at 0, Saturday at 0, now
    assert guard.report("day").total.calls == 1
    assert guard.report("day", tz="America/New_York").total.calls == 1
    assert guard.report("week").total.calls == 4
    assert guard.report("month").total.calls == 4
    assert guard.report("month", tz="America/New_York").total.calls == 3
    assert guard.report("all").total.calls == 4
    assert list(guard.report("all", by="day").rows) == [
        ("2026-01-01",), ("2026-01-02",), ("2026-01-03",),
    ]  # fmt: skip
    ((hour,), *_) = guard.report("all", "hour", tz="Asia/Kathmandu").rows
    assert hour == "2026-01-01T05+0545"
    spans: list[tuple[Any, int]] = [
        ((START, START + 36_000), 1),
        ((START, START + 36_001), 2),
        ((date(2026, 1, 2), None), 2),
        ((None, datetime(2026, 1, 1, 12, tzinfo=timezone.utc)), 2),
        ((datetime(2026, 1, 1, 10), datetime(2026, 1, 2)), 1),  # noqa: DTZ001
    ]
    assert [guard.report(span).total.calls for span, _ in spans] == [n for _, n in spans]
    assert guard.report("all").as_dict()["start"] is None
    assert guard.report("day").as_dict()["end"] == "2026-01-04T00:00:00+00:00"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"period": "year"}, "'day', 'week'"),
        ({"period": (2, 1)}, "start and end|\\(start, end\\)"),
        ({"period": ("yesterday", None)}, "datetimes"),
        ({"period": 7}, "datetimes"),
        ({"period": (math.nan, None)}, "datetimes"),
        ({"by": "users"}, "user, org"),
        ({"by": ["user", "weather"]}, "weather"),
        ({"tz": "Mars"}, "time zone 'Mars'"),
    ],
)
def test_a_wrong_argument_is_an_error(wrong: dict[str, Any], says: str) -> None:
    """It says what would be right."""
    with pytest.raises(ConfigurationError, match=says):
        guard_of("memory://").report(**wrong)


def test_without_a_journal_there_is_no_report() -> None:
    """The error says what to set."""
    with pytest.raises(ConfigurationError, match=r"journal='usage\.jsonl'"):
        Guard().report()


def test_a_hostile_name_does_not_break_the_table() -> None:
    """It stays on one line, and ends somewhere."""
    guard = guard_of("memory://")
    for user in ("a\nb\x1b[31m", "x" * 1000, "żółć"):
        call(guard, 1, user=user)
    table = str(guard.report(by="user"))
    assert len(table.splitlines()) == 5
    assert "\x1b" not in table
    assert max(map(len, table.splitlines())) < 140


def test_the_dearest_come_first() -> None:
    """Unless the groups are of time."""
    guard = guard_of("memory://")
    for user, tokens in (("a", 10), ("b", 90), ("c", 50)):
        call(guard, tokens, user=user)
    assert list(guard.report(by="user").rows) == [("b",), ("c",), ("a",)]
    assert [key[1] for key in guard.report(by=("day", "user")).rows] == ["a", "b", "c"]


# -- against the provider's own log --------------------------------------------------------------

PRICES = {
    "gpt-4o-mini*": Price(0.15, 0.60, cached=0.075),
    "gpt-4o*": Price(2.50, 10, cached=1.25),
    "claude*": Price(3, 15),
}
QUESTION: Any = [{"role": "user", "content": "a secret question"}]


def prices_of(model: str) -> Price:
    """The price of a model, found as the guard finds it."""
    return next(price for pattern, price in PRICES.items() if model.startswith(pattern[:-1]))


def one_of_each(guard: Guard, provider: FakeProvider) -> list[Callable[[int], object]]:
    """Calls of all kinds: plain, streamed, async, of another provider, failing."""
    openai = GuardedOpenAI(
        guard=guard, user="alice", base_url=provider.openai_url, api_key="none", max_retries=0
    )
    anthropic = GuardedAnthropic(
        guard=guard, user="carol", base_url=provider.anthropic_url, api_key="none", max_retries=0
    )

    def plain(number: int) -> object:
        return openai.chat.completions.create(
            model="gpt-4o", max_tokens=50 + number, messages=QUESTION
        )

    def streamed(number: int) -> object:
        stream = openai.chat.completions.create(
            model="gpt-4o", max_tokens=40 + number, messages=QUESTION, stream=True
        )
        return list(stream)

    def responses(_: int) -> object:
        with acting_as("dora"):
            return openai.responses.create(model="gpt-4o-mini", input="hello", max_output_tokens=30)

    def messages(number: int) -> object:
        return anthropic.messages.create(
            model="claude-sonnet-4-5", max_tokens=20 + number, messages=QUESTION
        )

    def failing(_: int) -> object:
        provider.enqueue(Reply(status=500))
        return plain(0)

    def not_allowed(_: int) -> object:
        return openai.chat.completions.create(model="o3", messages=QUESTION)

    def awaited(number: int) -> object:
        async def run() -> None:
            client = AsyncGuardedOpenAI(
                guard=guard, user="bob", base_url=provider.openai_url, api_key="none"
            )
            asked = [
                client.chat.completions.create(
                    model="gpt-4o", max_tokens=60 + n + number, messages=QUESTION
                )
                for n in range(5)
            ]
            await asyncio.gather(*asked, return_exceptions=True)
            await client.close()

        return asyncio.run(run())

    return [plain, streamed, responses, messages, failing, not_allowed, awaited]


@pytest.mark.parametrize("journal", ["memory://", "usage.jsonl", "sqlite:///usage.db"])
def test_a_report_equals_the_providers_log(
    journal: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mixed run of clients, with streams, fallbacks, refusals and errors: to the token, and to
    the nano-dollar by the price of the model that the provider served.
    """
    monkeypatch.chdir(tmp_path)
    numbers = iter(range(7, 10**6, 13))
    tier = Tier(
        "pro",
        ["900 tokens/day for gpt-4o", "1000 tokens/day for gpt-4o-mini", "300 tokens/day for cl*"],
        ["gpt-4o*", "claude*"],
        [Fallback("gpt-4o-mini")],
    )

    def reply(_: object) -> Reply:
        return Reply(input_tokens=20 + next(numbers) % 31, output_tokens=next(numbers) % 37)

    with FakeProvider(reply) as provider:
        guard = Guard(tiers=[tier], clock=FakeClock(), journal=journal, prices=PRICES)
        kinds = one_of_each(guard, provider)
        for number in range(8):
            for kind in kinds:
                with suppress(Exception):
                    kind(number)
        found = guard.report(by="model")
        served = provider.served
        asked_for = len(provider.requests)
    guard.close()
    total = found.total
    assert total.refused > 8
    assert total.downgraded > 3
    assert total.unpriced == 0
    assert total.requests == asked_for
    assert (total.input_tokens, total.output_tokens) == (served.input_tokens, served.output_tokens)
    by_model = {key[0]: row for key, row in found.rows.items() if row.calls}
    assert set(by_model) == set(served.by_model)
    for model, own in served.by_model.items():
        row = by_model[model]
        assert (row.input_tokens, row.output_tokens) == (own.input_tokens, own.output_tokens)
        paid = prices_of(model).nano_usd(Usage(1, own.input_tokens, own.output_tokens))
        assert row.nano_usd == paid
    if not journal.startswith("memory"):
        assert b"secret" not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


# -- the money question --------------------------------------------------------------------------


def test_what_blocking_saves() -> None:
    """The lesson's: 1,000 users, each blocked with 600 and with 300 tokens, 100 for each answer."""
    blocked = [Usage(1, 600, 100), Usage(1, 300, 100)]
    found = saved_by_blocking(blocked, "gpt-4o", price=Price(2.50, 10))
    assert found.each.nano_usd == 900 * 2_500 + 200 * 10_000
    assert found.per_day == Decimal("4.25")
    assert found.per_year == Decimal("1551.25")
    assert "$4.25 a day, $1,551.25 a year" in str(found)
    assert "Assumed: gpt-4o costs $2.50" in str(found)


def test_what_blocking_saves_by_the_list() -> None:
    """Prices are those of the list; one that nobody knows is an error, not nothing."""
    found = saved_by_blocking([Usage(1, 1_000_000)], "gpt-4o-mini", users=3)
    assert found.per_day == Decimal("0.45")
    assert "genai-prices" in str(found)
    with pytest.raises(PriceUnknown):
        saved_by_blocking([Usage(1, 1)], "nobody knows")
