"""A guard that learns the provider's limits, and how to call it."""

from __future__ import annotations

from typing import Any

import openai

from quotaguard import Guard, GuardedOpenAI
from quotaguard.testing import FakeClock, FakeProvider, Reply
from tests.clients.calls import CHAT

REFUSED = Reply(status=429, headers={"retry-after": "20"})


def learning(**more: Any) -> Guard:
    """A guard that learns, without limits of its own."""
    return Guard(**{"clock": FakeClock(), "learn_provider_limits": True} | more)


def made(guard: Guard, provider: FakeProvider, key: str = "sk-one", **more: Any) -> GuardedOpenAI:
    """A client with a key, that does not retry."""
    return GuardedOpenAI(
        guard=guard, base_url=provider.openai_url, api_key=key, **{"max_retries": 0} | more
    )


def ask(client: openai.OpenAI, model: str = "gpt-4o-mini") -> Any:
    """One call."""
    return client.chat.completions.create(**{**CHAT, "model": model})
