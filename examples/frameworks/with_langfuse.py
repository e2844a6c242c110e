"""langfuse: it traces the SDK's methods, whichever client they belong to."""

from __future__ import annotations

import asyncio

import langfuse.openai  # noqa: F401 -- from here on all of the SDK's clients are traced
from langfuse import Langfuse
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from quotaguard import AsyncGuardedOpenAI, Guard, GuardedOpenAI, acting_as
from quotaguard.testing import FakeProvider

ASK = [{"role": "user", "content": "What is a token bucket?"}]


async def stream(client: AsyncGuardedOpenAI) -> None:
    """An answer whose usage is asked for, so that langfuse sees it too."""
    pieces = await client.chat.completions.create(
        model="gpt-4o-mini", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    async for _ in pieces:
        pass
    await client.close()


def main(provider: FakeProvider, guard: Guard) -> None:
    """Alice asks, and bob has an answer streamed."""
    spans = InMemorySpanExporter()  # yours go to langfuse: leave these three arguments out
    traces = Langfuse(
        public_key="pk-test",
        secret_key="none needed",
        span_exporter=spans,
        tracer_provider=TracerProvider(),
    )
    settings = {"base_url": provider.openai_url, "api_key": "none needed"}
    client = GuardedOpenAI(guard=guard, user="alice", **settings)
    client.chat.completions.create(model="gpt-4o-mini", messages=ASK)
    with acting_as("bob"):
        asyncio.run(stream(AsyncGuardedOpenAI(guard=guard, user="alice", **settings)))
    traces.flush()
    for span in spans.get_finished_spans():
        print(f"{span.name}: {span.attributes['langfuse.observation.usage_details']}")
    traces.shutdown()


if __name__ == "__main__":
    with FakeProvider() as provider:
        guard = Guard(limits=["10k tokens/day"])
        main(provider, guard)
        print(
            *(f"{user} has {guard.peek(user=user)[0].left:.0f} left" for user in ("alice", "bob"))
        )
