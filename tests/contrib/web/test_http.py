"""What HTTP says of quotas: fields and problems, without a server."""

from __future__ import annotations

import re
from typing import Any

import pytest

from quotaguard import BackendError, Guard, Identity, QuotaExceeded
from quotaguard.contrib.http import REFUSALS, Exchange
from quotaguard.pricing import Price
from quotaguard.receipts import collecting
from quotaguard.testing import FakeClock

MIDNIGHT = 1_772_236_800.0  # 2026-02-28 00:00:00 UTC, a Saturday
_STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
_ITEM = rf"{_STRING}(?:;[a-z]+=(?:\d{{1,15}}|{_STRING}))*"
LIST = re.compile(rf"{_ITEM}(?:, {_ITEM})*")
"""A list of strings with parameters, as RFC 9651 writes it."""


def exchanged(
    *limits: str, model: str | None = None, used: int = 0, **who: Any
) -> tuple[Guard, dict[str, str]]:
    """The fields after a call that used so many tokens."""
    guard = Guard(limits=limits, clock=FakeClock(MIDNIGHT))
    with Exchange(guard, Identity("ann", **who)) as exchange:
        with guard.hold(model=model, output_tokens=0) as lease:
            lease.record(input_tokens=used)
        return guard, dict(exchange.fields())


@pytest.mark.parametrize(
    ("limit", "policy", "rest"),
    [
        ("1k tokens/day", 'q=1000;qu="tokens";w=86400', "r=700;t=86400"),
        ("1k tokens/week", 'q=1000;qu="tokens";w=604800', "r=700;t=172800"),
        ("1k tokens/month", 'q=1000;qu="tokens";w=2419200', "r=700;t=86400"),
        ("1k tokens/day in Asia/Tokyo", 'q=1000;qu="tokens";w=86400', "r=700;t=54000"),
        ("600 tokens/minute", 'q=600;qu="tokens";w=60', "r=300;t=30"),
        ("10 tokens/second burst 1k", 'q=1000;qu="tokens";w=100', "r=700;t=30"),
        ("1k input tokens/rolling day", 'q=1000;qu="input-tokens";w=86400', "r=700;t=25920"),
        ("200 tokens/day", 'q=200;qu="tokens";w=86400', "r=0;t=86400"),  # it is in debt
        ("1.5 requests/second", 'q=1;qu="requests";w=1', "r=0;t=1"),
        (
            "9000000B tokens/day",
            'q=999999999999999;qu="tokens";w=86400',
            "r=999999999999999;t=86400",
        ),
    ],
)
def test_the_fields_of_a_limit(limit: str, policy: str, rest: str) -> None:
    """Quota and window, what is left and when it is full: whole numbers, never below nothing."""
    _, fields = exchanged(limit, used=300)
    name = fields["ratelimit"].split(";")[0]
    assert fields == {"ratelimit-policy": f"{name};{policy}", "ratelimit": f"{name};{rest}"}


def test_money_is_told_in_whole_numbers() -> None:
    """In billionths of a dollar, as the ledger counts; the problem's body is in dollars."""
    price = Price(input=1.0, output=1.0)
    guard = Guard(limits=["$5/day"], prices={"m": price}, clock=FakeClock(MIDNIGHT))
    with Exchange(guard, "ann") as exchange:
        with guard.hold(model="m", output_tokens=0) as lease:
            lease.record(input_tokens=4_500_000)
        fields = dict(exchange.fields())
        with pytest.raises(QuotaExceeded) as refused:
            guard.hold(model="m", input_tokens=600_000, output_tokens=0).__enter__()
        problem = exchange.problem(refused.value)
        assert fields == {
            "ratelimit-policy": '"$5/day";q=5000000000;qu="nano-usd";w=86400',
            "ratelimit": '"$5/day";r=500000000;t=86400',
        }
        assert dict(exchange.fields()) == fields
        assert (problem.body["left"], problem.body["capacity"]) == (0.5, 5.0)


def test_a_caller_whose_name_is_hashed_is_known_by_the_hash() -> None:
    """It is told of its buckets, and its own name is nowhere."""
    guard = Guard(limits=["100 tokens/day"], identity_hash=b"secret", clock=FakeClock(MIDNIGHT))
    with Exchange(guard, "ann@example.com") as exchange:
        with guard.hold(input_tokens=60, output_tokens=0):
            assert dict(exchange.fields())["ratelimit"] == '"100 tokens/day";r=40;t=86400'
        with pytest.raises(QuotaExceeded) as refused:
            guard.hold(input_tokens=60, output_tokens=0).__enter__()
        problem = exchange.problem(refused.value)
    assert problem.body["left"] == 40
    assert "ann@example.com" not in str(problem)


def test_hostile_names_break_no_field() -> None:
    """What a client calls a model may not add a header field, or end a string."""
    evil = 'gpt"\\\r\nSet-Cookie: a=b\u2028é'
    guard = Guard(limits=["1 tokens/day for gpt*", "1k tokens/day"], clock=FakeClock(MIDNIGHT))
    with Exchange(guard, "ann") as exchange, guard.hold(model=evil, output_tokens=0) as lease:
        lease.model = "gpt-4o"
        fields = dict(exchange.fields())
    assert len(fields) == 4
    for value in fields.values():
        assert LIST.fullmatch(value), value
    assert fields["quota-requested-model"] == '"gpt\\"\\\\??Set-Cookie: a=b??"'


def test_a_refusal_says_the_same_in_its_fields() -> None:
    """The limit that binds is among them, as it was when it refused."""
    guard = Guard(limits=["100 tokens/day"], clock=FakeClock(MIDNIGHT))
    with Exchange(guard, "ann") as exchange:
        with guard.hold(input_tokens=60, output_tokens=0):
            pass
        with pytest.raises(QuotaExceeded) as refused, guard.hold(input_tokens=50, output_tokens=0):
            raise AssertionError
        problem = exchange.problem(refused.value)
        assert (problem.status, problem.fields) == (429, [("retry-after", "86400")])
        assert dict(exchange.fields())["ratelimit"] == '"100 tokens/day";r=40;t=86400'


@pytest.mark.parametrize(("wait", "told"), [(0.0, "1"), (0.001, "1"), (1.0, "1"), (1.01, "2")])
def test_retry_after_is_never_too_early(wait: float, told: str) -> None:
    """Whole seconds, rounded up."""
    error = QuotaExceeded(
        who="user ann",
        limit="1 requests/second",
        metric="requests",
        asked=1,
        left=0,
        capacity=1,
        retry_after=wait,
    )
    with Exchange(Guard(), "ann") as exchange:
        assert exchange.problem(error).fields == [("retry-after", told)]


def test_who_is_not_known_hears_of_nobodys_quota() -> None:
    """Neither of the bucket that all such callers share."""
    guard = Guard(limits=["100 tokens/day"], anonymous="anybody", clock=FakeClock(MIDNIGHT))
    with Exchange(guard) as exchange:
        with guard.hold(input_tokens=60, output_tokens=0):
            pass
        with pytest.raises(QuotaExceeded) as refused, guard.hold(input_tokens=50, output_tokens=0):
            raise AssertionError
        assert exchange.fields() == []
        assert set(exchange.problem(refused.value).body) == {
            "type",
            "title",
            "status",
            "detail",
            "retry_after",
        }


def test_an_exchange_knows_what_was_called_within_it() -> None:
    """Not what was called before or after; of nested ones the innermost gets it."""
    guard = Guard(limits=["100 requests/day"])
    with collecting() as outer:
        with guard.hold(user="ann"):
            pass
        with Exchange(guard, "bob") as exchange, guard.hold():
            pass
        with guard.hold(user="cyd"):
            pass
    with guard.hold(user="dan"):
        pass
    assert [lease.identity.user for lease in outer] == ["ann", "cyd"]
    assert [lease.identity.user for lease in exchange.leases] == ["bob"]


def test_each_kind_of_refusal_has_an_answer() -> None:
    """What is caught can be told."""
    with Exchange(Guard(), "ann") as exchange:
        problem = exchange.problem(BackendError("secret host"))
    assert (problem.status, problem.body["title"]) == (503, "Service Unavailable")
    assert "secret" not in str(problem)
    assert BackendError in REFUSALS
