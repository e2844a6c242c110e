"""OpenAI's Agents SDK: one default client, or a client for each model."""

from __future__ import annotations

import asyncio

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)

from quotaguard import AsyncGuardedOpenAI, Guard, acting_as
from quotaguard.testing import FakeProvider


@function_tool
def seconds_left() -> int:
    """How long it takes until the bucket is full again."""
    return 90


async def streamed(agent: Agent[None]) -> str:
    """The answer to a run whose events are looked at one by one."""
    run = Runner.run_streamed(agent, "Count to three.")
    async for _ in run.stream_events():
        pass
    return str(run.final_output)


async def talk(provider: FakeProvider, guard: Guard) -> None:
    """Alice asks, by the Responses API; bob streams, by chat completions."""
    async with AsyncGuardedOpenAI(
        guard=guard, user="alice", base_url=provider.openai_url, api_key="none needed"
    ) as client:
        set_default_openai_client(client, use_for_tracing=False)
        asked = Agent(name="asked", model="gpt-4o-mini", tools=[seconds_left])
        print(f"alice: {(await Runner.run(asked, 'When is it full?')).final_output}")
        own = OpenAIChatCompletionsModel(model="gpt-4o-mini", openai_client=client)
        with acting_as("bob"):
            print(f"bob: {await streamed(Agent(name='streamed', model=own))}")


def main(provider: FakeProvider, guard: Guard) -> None:
    """Run it without sending traces to OpenAI."""
    set_tracing_disabled(disabled=True)
    asyncio.run(talk(provider, guard))


if __name__ == "__main__":
    with FakeProvider() as provider:
        guard = Guard(limits=["10k tokens/day"])
        main(provider, guard)
        print(
            *(f"{user} has {guard.peek(user=user)[0].left:.0f} left" for user in ("alice", "bob"))
        )
