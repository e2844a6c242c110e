"""LangChain's ChatOpenAI: it takes guarded clients as arguments."""

from __future__ import annotations

import asyncio

from langchain_openai import ChatOpenAI

from quotaguard import AsyncGuardedOpenAI, Guard, GuardedOpenAI, acting_as
from quotaguard.testing import FakeProvider


def make_model(provider: FakeProvider, guard: Guard, responses: bool) -> ChatOpenAI:
    """A model for everybody: its calls are charged to whom `acting_as` names, else to alice."""
    settings = {"base_url": provider.openai_url, "api_key": "none needed"}
    client = GuardedOpenAI(guard=guard, user="alice", **settings)
    async_client = AsyncGuardedOpenAI(guard=guard, user="alice", **settings)
    return ChatOpenAI(
        model="gpt-4o-mini",
        client=client.chat.completions,
        root_client=client,  # for the Responses API and structured output
        async_client=async_client.chat.completions,
        root_async_client=async_client,
        api_key="none needed",
        use_responses_api=responses,
    )


async def stream(model: ChatOpenAI) -> str:
    """What arrives, piece by piece."""
    return "".join([piece.text async for piece in model.astream("Count to three.")])


def main(provider: FakeProvider, guard: Guard) -> None:
    """Alice asks, and bob has an answer streamed; by chat completions, then by responses."""
    for responses in (False, True):
        model = make_model(provider, guard, responses)
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
