"""Haystack: a generator uses the clients that it finds in ``client`` and ``async_client``."""

from __future__ import annotations

import asyncio

from haystack import Pipeline
from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret

from quotaguard import AsyncGuardedOpenAI, Guard, GuardedOpenAI, acting_as
from quotaguard.testing import FakeProvider


def main(provider: FakeProvider, guard: Guard) -> None:
    """Alice asks through a pipeline, and bob has an answer streamed."""
    settings = {"base_url": provider.openai_url, "api_key": "none needed"}
    generator = OpenAIChatGenerator(Secret.from_token("none needed"), model="gpt-4o-mini")
    generator.client = GuardedOpenAI(guard=guard, user="alice", **settings)
    generator.async_client = AsyncGuardedOpenAI(guard=guard, user="alice", **settings)

    pipeline = Pipeline()
    pipeline.add_component("llm", generator)
    asked = {"llm": {"messages": [ChatMessage.from_user("What is a token bucket?")]}}
    print(f"alice: {pipeline.run(asked)['llm']['replies'][0].text}")

    async def show(chunk: object) -> None:
        print(chunk.content, end="")

    with acting_as("bob"):
        print("bob: ", end="")
        count = [ChatMessage.from_user("Count to three.")]
        asyncio.run(generator.run_async(count, streaming_callback=show))
        print()


if __name__ == "__main__":
    with FakeProvider() as provider:
        guard = Guard(limits=["10k tokens/day"])
        main(provider, guard)
        print(
            *(f"{user} has {guard.peek(user=user)[0].left:.0f} left" for user in ("alice", "bob"))
        )
