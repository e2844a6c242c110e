"""Tiers against a real Redis and a local provider: a day in their life, and a crowd at the line."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from typing import Any

import openai
import pytest

from quotaguard import (
    AsyncGuardedOpenAI,
    Fallback,
    Guard,
    GuardedOpenAI,
    ModelNotAllowed,
    Price,
    QuotaExceeded,
    Refuse,
    Tier,
    Usage,
    receipt,
)
from quotaguard.events import Event, Refused, Settled
from quotaguard.testing import FakeClock, FakeProvider, Reply
from tests.backends.redis_server import RedisServer

QUESTION: Any = [{"role": "user", "content": "What is a token bucket?"}]
PRICES = {
    "o3": Price(Decimal(2), Decimal(8)),
    "gpt-4o-mini": Price(Decimal("0.15"), Decimal("0.6")),
}
TIERS = [
    Tier("free", ["10k tokens/day"], ["gpt-4o-mini"]),
    Tier(
        "pro",
        ["30k tokens/day for o3", "500k tokens/day for gpt-4o-mini"],
        ["o3", "gpt-4o-mini"],
        when_exceeded=[Fallback("gpt-4o-mini"), Refuse()],
    ),
    Tier("enterprise", ["40k tokens/day", "$5/day per org"]),
]


def ask(client: GuardedOpenAI, model: str) -> Any:
    """One question with an answer of at most 2,000 tokens."""
    return client.chat.completions.create(
        model=model,
        messages=QUESTION,
        max_completion_tokens=2000,
        reasoning_effort="low",
    )


def served_until_refused(client: GuardedOpenAI, model: str) -> int:
    """How many calls go before one is refused."""
    for number in range(1000):
        try:
            ask(client, model)
        except QuotaExceeded:
            return number
    raise AssertionError("never refused")


def test_a_day_in_the_life_of_three_tiers(server: RedisServer) -> None:
    """Refused, downgraded at the exact call, back after the reset, overridden without a restart;
    and what was charged is what the provider said, to the token and the nano-dollar.
    """
    told: list[Event] = []
    clock = FakeClock()
    guard = Guard(
        tiers=TIERS,
        default_tier="free",
        backend=f"{server.url}?backend_timeout=20",  # the machine may be busy
        prices=PRICES,
        hooks=[told.append],
        clock=clock,
    )
    reply = Reply(input_tokens=500, output_tokens=1500)
    with (
        FakeProvider(reply) as provider,
        GuardedOpenAI(guard=guard, base_url=provider.openai_url, api_key="test") as shared,
    ):
        free = shared.with_options(user="alice", tier="free")
        with pytest.raises(openai.PermissionDeniedError) as denied:
            ask(free, "o3")
        assert isinstance(denied.value, ModelNotAllowed)
        assert denied.value.allowed == ("gpt-4o-mini",)
        assert served_until_refused(free, "gpt-4o-mini") == 4  # the fifth might take 2,000

        pro = shared.with_options(user="bob", tier="pro")
        served = [receipt(ask(pro, "o3")) for _ in range(16)]
        fits = 14  # 14 x 2,000 are used, then a call that may take more than 2,000 has no room
        assert [each.served_model for each in served] == ["o3"] * fits + ["gpt-4o-mini"] * 2
        assert served[-1].because == "30k tokens/day for o3"
        assert provider.requests[-1].body == {
            "model": "gpt-4o-mini",
            "messages": QUESTION,
            "max_completion_tokens": 2000,
        }
        clock.advance(86_400)
        assert receipt(ask(pro, "o3")).served_model == "o3"

        acme = shared.with_options(user="carol", org="acme", tier="enterprise")
        assert served_until_refused(acme, "o3") == 19
        bigger = TIERS[2].overridden(["100k tokens/day"])
        guard.update(tiers=[*TIERS[:2], bigger], default_tier="free")
        assert served_until_refused(acme, "o3") == 30
        guard.close()

    charged = Usage(nano_usd=0)
    for event in told:
        if isinstance(event, Settled) and event.used is not None:
            charged += event.used
    paid = provider.served
    assert charged.counts[:3] == (paid.requests, paid.input_tokens, paid.output_tokens)
    bill = sum(
        (
            (PRICES[model].input * used.input_tokens + PRICES[model].output * used.output_tokens)
            for model, used in paid.by_model.items()
        ),
        Decimal(0),
    )
    assert charged.usd == bill / 10**6
    assert Counter(type(event.error).__name__ for event in told if isinstance(event, Refused)) == {
        "ModelNotAllowed": 1,
        "QuotaExceeded": 3,
    }


def test_two_hundred_cross_the_line_at_once(server: RedisServer) -> None:
    """Each call is served by a model whose own limits had room then: not one token over in any
    bucket, and none left that another call could have had.
    """
    told: list[Event] = []
    tier = Tier(
        "pro",
        ["100k tokens/day per org for o3", "50k tokens/day per org for gpt-4o-mini"],
        when_exceeded=[Fallback("gpt-4o-mini")],
    )
    guard = Guard(
        tiers=[tier],
        backend=f"{server.url}?backend_timeout=20",
        hooks=[told.append],
        clock=FakeClock(),
    )

    async def main(provider: FakeProvider) -> list[Any]:
        async with AsyncGuardedOpenAI(
            guard=guard, base_url=provider.openai_url, api_key="test", org="acme"
        ) as client:

            async def one(number: int) -> str:
                try:
                    answer = await client.with_options(
                        user=f"user {number}"
                    ).chat.completions.create(
                        model="o3", messages=QUESTION, max_completion_tokens=1000
                    )
                except QuotaExceeded:
                    return "refused"
                return receipt(answer).served_model or ""

            outcomes = await asyncio.gather(*(one(number) for number in range(200)))
            await guard.aclose()
            return outcomes

    with FakeProvider(Reply(input_tokens=10, output_tokens=900)) as provider:
        outcomes = Counter(asyncio.run(main(provider)))
        by_model = provider.served.by_model
    for model, room in (("o3", 100_000), ("gpt-4o-mini", 50_000)):
        settled = [e for e in told if isinstance(e, Settled) and e.served == model]
        assert outcomes[model] == by_model[model].requests == len(settled)
        used = by_model[model].input_tokens + by_model[model].output_tokens
        reserved = settled[0].reserved.tokens
        assert used < reserved * outcomes[model]
        assert room // reserved <= outcomes[model] <= room // 910
        assert used <= room
    assert outcomes["refused"] == 200 - outcomes["o3"] - outcomes["gpt-4o-mini"] > 0
