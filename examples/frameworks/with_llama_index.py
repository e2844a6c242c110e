"""LlamaIndex: its OpenAI takes both clients as arguments."""

from __future__ import annotations

import asyncio

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI

from quotaguard import AsyncGuardedOpenAI, Guard, GuardedOpenAI, acting_as
from quotaguard.testing import FakeProvider


async def stream(model: OpenAI) -> str:
    """What arrives, piece by piece."""
    pieces = await model.astream_chat([ChatMessage(role="user", content="Count to three.")])
    return "".join([piece.delta or "" async for piece in pieces])


def main(provider: FakeProvider, guard: Guard) -> None:
    """Alice asks, and bob has an answer streamed."""
    settings = {"base_url": provider.openai_url, "api_key": "none needed"}
    model = OpenAI(
        model="gpt-4o-mini",
        api_key="none needed",
        max_retries=0,  # it would sleep out a refusal's retry-after, two minutes at a time
        openai_client=GuardedOpenAI(guard=guard, user="alice", **settings),
        async_openai_client=AsyncGuardedOpenAI(guard=guard, user="alice", **settings),
    )
    print(f"alice: {model.complete('What is a token bucket?')}")
    with acting_as("bob"):
        print(f"bob: {asyncio.run(stream(model))}")


if __name__ == "__main__":
    with FakeProvider() as provider:
        guard = Guard(limits=["10k tokens/day"])
        main(provider, guard)
        print(
            *(f"{user} has {guard.peek(user=user)[0].left:.0f} left" for user in ("alice", "bob"))
        )
