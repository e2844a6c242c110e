"""LiteLLM: ``client=`` for OpenAI's chat completions; `patch` for what goes past it."""

from __future__ import annotations

import asyncio
import os

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # its prices without a download

import litellm

from quotaguard import AsyncGuardedOpenAI, Guard, GuardedOpenAI, acting_as, patch
from quotaguard.testing import FakeProvider

ASK = [{"role": "user", "content": "What is a token bucket?"}]


async def stream(client: AsyncGuardedOpenAI) -> str:
    """What arrives, piece by piece."""
    pieces = await litellm.acompletion("openai/gpt-4o-mini", ASK, stream=True, client=client)
    return "".join([piece.choices[0].delta.content or "" async for piece in pieces])


def main(provider: FakeProvider, guard: Guard) -> None:
    """Alice asks, bob has an answer streamed, and carol's call has no ``client=``."""
    settings = {"base_url": provider.openai_url, "api_key": "none needed"}
    client = GuardedOpenAI(guard=guard, user="alice", **settings)
    answer = litellm.completion("openai/gpt-4o-mini", ASK, client=client)
    print(f"alice: {answer.choices[0].message.content}")
    with acting_as("bob"):
        awaiting = AsyncGuardedOpenAI(guard=guard, user="alice", **settings)
        print(f"bob: {asyncio.run(stream(awaiting))}")
    with patch(guard=guard, user="carol"):
        answer = litellm.completion("openai/gpt-4o-mini", ASK, **settings)
    print(f"carol: {answer.choices[0].message.content}")


if __name__ == "__main__":
    with FakeProvider() as provider:
        guard = Guard(limits=["10k tokens/day"])
        main(provider, guard)
        print(
            *(f"{user} has {guard.peek(user=user)[0].left:.0f} left" for user in ("alice", "bob"))
        )
