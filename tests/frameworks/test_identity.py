"""One model for everybody: each call is its own user's, however many run at once."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from quotaguard import AsyncGuardedOpenAI, GuardedOpenAI, acting_as
from quotaguard.testing import FakeProvider, Reply
from quotaguard.testing.provider.record import Seen
from tests.frameworks.kit import Audit, Charge

USERS = range(20)


def of_the_user(seen: Seen) -> Reply:
    """An answer whose usage tells who asked."""
    found = re.search(r"I am user (\d+)", str(seen.body["messages"]))
    assert found is not None
    return Reply(input_tokens=100 + int(found[1]), output_tokens=1 + int(found[1]))


@pytest.fixture
def telling() -> Iterator[FakeProvider]:
    """A provider that answers each user differently."""
    with FakeProvider(of_the_user) as provider:
        yield provider


def langchain(client: AsyncGuardedOpenAI) -> Callable[[str], Awaitable[Any]]:
    """ChatOpenAI, awaited."""
    from langchain_openai import ChatOpenAI

    model: Any = ChatOpenAI(
        model="gpt-4o-mini",
        async_client=client.chat.completions,
        root_async_client=client,
        api_key="none needed",
    )
    return model.ainvoke  # type: ignore[no-any-return]


def pydantic_ai(client: AsyncGuardedOpenAI) -> Callable[[str], Awaitable[Any]]:
    """An agent, awaited."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    return Agent(OpenAIChatModel("gpt-4o-mini", provider=OpenAIProvider(openai_client=client))).run


def agents(client: AsyncGuardedOpenAI) -> Callable[[str], Awaitable[Any]]:
    """A run of the Agents SDK."""
    from agents import Agent, OpenAIChatCompletionsModel, Runner

    model = OpenAIChatCompletionsModel(model="gpt-4o-mini", openai_client=client)
    return lambda text: Runner.run(Agent(name="one", model=model), text)


@pytest.mark.parametrize("framework", [langchain, pydantic_ai, agents], ids=lambda it: it.__name__)
def test_users_at_once(framework: Any, telling: FakeProvider) -> None:
    """Twenty tasks on one client: nobody pays for another."""
    audit = Audit()

    async def main() -> None:
        async with AsyncGuardedOpenAI(
            guard=audit.guard, base_url=telling.openai_url, api_key="none needed"
        ) as client:
            ask = framework(client)

            async def one(number: int) -> None:
                with acting_as(f"user {number}"):
                    await ask(f"I am user {number}.")

            await asyncio.gather(*map(one, USERS))

    asyncio.run(main())
    assert dict(audit.charges) == {f"user {n}": Charge(100 + n, 1 + n) for n in USERS}
    assert len(audit.charges) == len(USERS)
    assert audit.guard.backend.open_reservations == 0


def test_threads_of_a_framework(telling: FakeProvider) -> None:
    """LangChain's ``batch`` copies the context to its threads: all of it is bob's."""
    from langchain_openai import ChatOpenAI

    audit = Audit()
    with GuardedOpenAI(
        guard=audit.guard, user="alice", base_url=telling.openai_url, api_key="none needed"
    ) as client:
        model: Any = ChatOpenAI(
            model="gpt-4o-mini",
            client=client.chat.completions,
            root_client=client,
            api_key="none needed",
        )
        with acting_as("bob"):
            model.batch([f"I am user {number}." for number in USERS])
    assert audit.users() == {"bob"}
    assert sorted(charge for _, charge in audit.charges) == [Charge(100 + n, 1 + n) for n in USERS]
