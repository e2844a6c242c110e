"""The stress test of a quota: prompts that do not fit are blocked, and what that saves.

A real SDK client sends real requests to a provider on this machine; nothing costs anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .clients.openai import GuardedOpenAI
from .errors import ConfigurationError, QuotaExceeded
from .guard import Guard
from .limits import Limit
from .pricing import Price
from .receipts import receipt
from .savings import Savings, saved_by_blocking
from .testing import FakeClock, FakeProvider, Reply
from .usage import Usage

SHORTEST = 8
"""Tokens; the chat format alone takes 7."""
_USER = "alice"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One prompt that was sent, or was to be.

    Attributes:
        tokens: its length as it was counted, the chat format included.
        blocked: why it was not sent; None: it passed.
        used: what it used, its answer included.
        left: what was left of the quota then.
    """

    tokens: int
    blocked: str | None
    used: Usage | None
    left: float


@dataclass(frozen=True, slots=True)
class StressTest:
    """What became of the prompts; ``str(test)`` tells the story.

    Attributes:
        quota: tokens a day.
        attempts: the prompts, in order.
        seen: requests that the provider saw.
        savings: what the blocked prompts of so many users a day would have cost.
    """

    quota: float
    attempts: tuple[Attempt, ...]
    seen: int
    savings: Savings

    def as_dict(self) -> dict[str, Any]:
        """The result as JSON values; dollars as text, so that they stay exact."""
        savings = self.savings
        return {
            "model": savings.model,
            "quota": self.quota,
            "attempts": [
                {
                    "tokens": each.tokens,
                    "passed": each.blocked is None,
                    "why": each.blocked,
                    "used": each.used.tokens if each.used else 0,
                    "left": each.left,
                }
                for each in self.attempts
            ],
            "requests_seen": self.seen,
            "users": savings.users,
            "blocked_each": savings.calls,
            "usd_each": f"{savings.each.usd:f}",
            "usd_per_day": f"{savings.per_day:f}",
            "usd_per_year": f"{savings.per_year:f}",
            "assumptions": list(savings.assumptions),
        }

    def __str__(self) -> str:
        lines = [f"{_USER} has {self.quota:,.0f} tokens a day."]
        for each in self.attempts:
            if each.used is None:
                lines.append(f"A prompt of {each.tokens} tokens is blocked: {each.blocked}.")
            else:
                lines.append(
                    f"A prompt of {each.tokens} tokens passes: it used {each.used.input_tokens} "
                    f"and its answer {each.used.output_tokens}, {each.left:,.0f} of "
                    f"{self.quota:,.0f} are left."
                )
        requests = "1 request" if self.seen == 1 else f"{self.seen} requests"
        lines.append(f"The provider saw {requests}; what is blocked costs nothing.")
        return "\n".join([*lines, "", "What is that in money?", str(self.savings)])


def stress_test(
    quota: float = 500,
    prompts: Sequence[int] = (600, 300, 300),
    *,
    answer: int = 100,
    users: int = 1000,
    model: str = "gpt-4o",
    price: Price | None = None,
) -> StressTest:
    """Send prompts against a quota, and say what blocking so many users a day saves.

    Args:
        quota: tokens a day.
        prompts: how long they are, in tokens.
        answer: tokens of an answer.
        users: how many users send the same prompts each day.
        model: which model they ask for.
        price: of that model (default: what the list of genai-prices says today).

    Raises:
        ConfigurationError: a number is wrong.
        PriceUnknown: there is no price.
    """
    _whole(prompts, "a prompt", "tokens", SHORTEST)
    _whole([answer], "an answer", "tokens", 0)
    _whole([users], "users", "people", 0)
    attempts: list[Attempt] = []
    guard = Guard(limits=[Limit(quota, "tokens", "day")], clock=FakeClock())
    reply = Reply()
    with FakeProvider(lambda _: reply) as provider:
        client = GuardedOpenAI(
            guard=guard, user=_USER, base_url=provider.openai_url, api_key="none needed"
        )
        for wanted in prompts:
            body, tokens = _prompt(guard, model, wanted)
            reply = Reply(input_tokens=tokens, output_tokens=answer)
            blocked, used = None, None
            try:
                used = receipt(client.chat.completions.create(**body)).used
            except QuotaExceeded as error:
                blocked = str(error)
            attempts.append(Attempt(tokens, blocked, used, guard.peek(user=_USER)[0].left))
        seen = len(provider.requests)
        client.close()
    refused = [Usage(1, each.tokens, answer) for each in attempts if each.used is None]
    assumed = f"An answer has {answer:,} tokens, also the one that was never written."
    savings = saved_by_blocking(refused, model, users=users, price=price, assumed=(assumed,))
    return StressTest(quota, tuple(attempts), seen, savings)


def _prompt(guard: Guard, model: str, tokens: int) -> tuple[dict[str, Any], int]:
    """The longest prompt of so many tokens at most, and how many it was counted to have."""

    def body(words: int) -> dict[str, Any]:
        text = "hello" + " hello" * words
        return {"model": model, "messages": [{"role": "user", "content": text}]}

    def count(words: int) -> int:
        return guard.estimate("chat", body(words)).input_tokens

    low, high = 0, tokens
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(middle) <= tokens else (low, middle - 1)
    return body(low), count(low)


def _whole(numbers: Iterable[object], what: str, unit: str, least: int) -> None:
    for number in numbers:
        if type(number) is not int or number < least:
            raise ConfigurationError(
                f"{what} is a whole number of {unit} >= {least}, not {number!r}"
            )
