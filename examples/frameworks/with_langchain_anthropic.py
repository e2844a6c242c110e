"""LangChain's ChatAnthropic: it uses the clients that it finds in its place for them."""

from __future__ import annotations

import asyncio

from langchain_anthropic import ChatAnthropic

from quotaguard import AsyncGuardedAnthropic, Guard, GuardedAnthropic, acting_as
from quotaguard.testing import FakeProvider


async def stream(model: ChatAnthropic) -> str:
    """What arrives, piece by piece."""
    return "".join([piece.text async for piece in model.astream("Count to three.")])


def main(provider: FakeProvider, guard: Guard) -> None:
    """Alice asks, and bob has an answer streamed."""
    settings = {"base_url": provider.anthropic_url, "api_key": "none needed"}
    model = ChatAnthropic(model="claude-opus-5", max_tokens=100, api_key="none needed")
    # There is no argument for them. It would make its own when first asked for one.
    model._client = GuardedAnthropic(guard=guard, user="alice", **settings)
    model._async_client = AsyncGuardedAnthropic(guard=guard, user="alice", **settings)
    print(f"alice: {model.invoke('What is a token bucket?').text}")
    with acting_as("bob"):
        print(f"bob: {asyncio.run(stream(model))}")


if __name__ == "__main__":
    with FakeProvider() as provider:
        guard = Guard(limits=["10k tokens/day"])
        main(provider, guard)
        print(
            *(f"{user} has {guard.peek(user=user)[0].left:.0f} left" for user in ("alice", "bob"))
        )
