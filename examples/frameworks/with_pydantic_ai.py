"""pydantic-ai: its providers take a client, the awaiting one."""

from __future__ import annotations

from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from quotaguard import AsyncGuardedAnthropic, AsyncGuardedOpenAI, Guard, acting_as
from quotaguard.testing import FakeProvider


def main(provider: FakeProvider, guard: Guard) -> None:
    """Alice asks, and bob has an answer streamed."""
    openai_client = AsyncGuardedOpenAI(
        guard=guard, user="alice", base_url=provider.openai_url, api_key="none needed"
    )
    anthropic_client = AsyncGuardedAnthropic(
        guard=guard, user="alice", base_url=provider.anthropic_url, api_key="none needed"
    )
    openai = OpenAIProvider(openai_client=openai_client)
    anthropic = AnthropicProvider(anthropic_client=anthropic_client)
    for model in (
        OpenAIChatModel("gpt-4o-mini", provider=openai),
        OpenAIResponsesModel("gpt-4o-mini", provider=openai),
        AnthropicModel("claude-opus-5", provider=anthropic, settings={"max_tokens": 100}),
    ):
        agent = Agent(model)
        print(f"alice: {agent.run_sync('What is a token bucket?').output}")
        with acting_as("bob"):
            streamed = agent.run_stream_sync("Count to three.")
            print(f"bob: {''.join(streamed.stream_text(delta=True))}")


if __name__ == "__main__":
    with FakeProvider() as provider:
        guard = Guard(limits=["10k tokens/day"])
        main(provider, guard)
        print(
            *(f"{user} has {guard.peek(user=user)[0].left:.0f} left" for user in ("alice", "bob"))
        )
