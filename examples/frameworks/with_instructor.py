"""instructor: it patches the client that it is given, a guarded one as any other."""

from __future__ import annotations

import asyncio
import json

import instructor
from pydantic import BaseModel

from quotaguard import AsyncGuardedOpenAI, Guard, GuardedAnthropic, GuardedOpenAI, acting_as
from quotaguard.testing import FakeProvider, Reply


class City(BaseModel):
    """What is asked for."""

    name: str
    people: int


PARIS = Reply(text=json.dumps({"name": "Paris", "people": 2_000_000}))
NOT_YET = Reply(text=json.dumps({"name": "Paris"}))  # it is asked again, and that is charged too
ASK = [{"role": "user", "content": "What is the capital of France?"}]


def main(provider: FakeProvider, guard: Guard) -> None:
    """Alice gets a city from either SDK, bob one at the second attempt."""
    provider.enqueue(PARIS, PARIS, NOT_YET, PARIS)
    settings = {"base_url": provider.openai_url, "api_key": "none needed"}
    client = instructor.from_openai(
        GuardedOpenAI(guard=guard, user="alice", **settings), mode=instructor.Mode.JSON
    )
    print(client.create(model="gpt-4o-mini", response_model=City, messages=ASK))

    claude = instructor.from_anthropic(
        GuardedAnthropic(
            guard=guard, user="alice", base_url=provider.anthropic_url, api_key="none needed"
        ),
        mode=instructor.Mode.JSON,
    )
    print(claude.create(model="claude-opus-5", max_tokens=99, response_model=City, messages=ASK))

    awaiting = instructor.from_openai(
        AsyncGuardedOpenAI(guard=guard, user="alice", **settings), mode=instructor.Mode.JSON
    )
    with acting_as("bob"):
        print(asyncio.run(awaiting.create(model="gpt-4o", response_model=City, messages=ASK)))


if __name__ == "__main__":
    with FakeProvider() as provider:
        guard = Guard(limits=["10k tokens/day"])
        main(provider, guard)
        print(
            *(f"{user} has {guard.peek(user=user)[0].left:.0f} left" for user in ("alice", "bob"))
        )
