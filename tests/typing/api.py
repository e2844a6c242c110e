"""Never run: what type checkers must know about the public API (mypy and pyright read it)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from anthropic import Anthropic
from anthropic import Stream as AnthropicStream
from anthropic.types import Message, RawMessageStreamEvent
from openai import AsyncStream, OpenAI, Stream
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ParsedChatCompletion
from openai.types.responses import ParsedResponse, Response
from pydantic import BaseModel
from typing_extensions import assert_type

from quotaguard import (
    AsyncGuardedOpenAI,
    Fallback,
    Guard,
    GuardedAnthropic,
    GuardedAzureOpenAI,
    GuardedOpenAI,
    Lease,
    Refuse,
    Tier,
    Wait,
    acting_as,
    receipt,
    token_limited,
)
from quotaguard.jobs import Done


class City(BaseModel):
    name: str


guard = Guard(
    tiers=[Tier("pro", ["500k tokens/day"], when_exceeded=[Fallback("small"), Wait(30), Refuse()])]
)
client = GuardedOpenAI(guard=guard, user="alice", tier="pro", api_key="k", timeout=3.0)
plain: OpenAI = client
private = GuardedOpenAI(limits=["10k tokens/day"], user=lambda: "alice")
azure = GuardedAzureOpenAI(azure_endpoint="https://x", api_version="1", api_key="k", guard=guard)

answer = client.chat.completions.create(
    model="gpt-4o", messages=[{"role": "user", "content": "hello"}]
)
assert_type(answer, ChatCompletion)
stream = client.chat.completions.create(
    model="gpt-4o", messages=[{"role": "user", "content": "hello"}], stream=True
)
assert_type(stream, Stream[ChatCompletionChunk])
parsed = client.chat.completions.parse(
    model="gpt-4o", messages=[{"role": "user", "content": "hello"}], response_format=City
)
assert_type(parsed, ParsedChatCompletion[City])
assert_type(client.responses.create(model="gpt-4o", input="hello"), Response)
assert_type(
    client.responses.parse(model="gpt-4o", input="hello", text_format=City), ParsedResponse[City]
)
assert_type(client.with_options(timeout=1.0), GuardedOpenAI)
assert_type(client.copy(user="bob"), GuardedOpenAI)
assert_type(guard.wrap(OpenAI()), OpenAI)
assert_type(guard.wrap(Anthropic(), user="bob"), Anthropic)
assert_type(receipt(answer).waited, float)

claude = GuardedAnthropic(guard=guard, user="alice", max_retries=1)
message = claude.messages.create(
    model="claude", max_tokens=10, messages=[{"role": "user", "content": "hello"}]
)
assert_type(message, Message)
events = claude.messages.create(
    model="claude", max_tokens=10, messages=[{"role": "user", "content": "hello"}], stream=True
)
assert_type(events, AnthropicStream[RawMessageStreamEvent])

GuardedOpenAI(user=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
GuardedOpenAI(timeout="soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@token_limited(guard, user=lambda user_id, **_: user_id, input_tokens=100)
def summarise(user_id: str, text: str) -> ChatCompletion:
    raise NotImplementedError


@token_limited(guard, user="alice")
async def asummarise(text: str, lease: Lease | None = None) -> str:
    raise NotImplementedError


@token_limited(guard)
def pieces(text: str) -> Iterator[str]:
    raise NotImplementedError


@token_limited(guard)
async def apieces(text: str) -> AsyncIterator[str]:
    raise NotImplementedError
    yield ""


class Service:
    @token_limited(guard, user=lambda self, **_: str(self))
    def ask(self, question: str) -> int:
        raise NotImplementedError


assert_type(summarise("alice", "text"), ChatCompletion)
assert_type(pieces("text"), Iterator[str])
assert_type(apieces("text"), AsyncIterator[str])
summarise("alice", 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def use() -> None:
    assert_type(await asummarise("text"), str)
    aclient = AsyncGuardedOpenAI(guard=guard)
    chunks = await aclient.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "hello"}], stream=True
    )
    assert_type(chunks, AsyncStream[ChatCompletionChunk])
    async with guard.ahold(user="alice", input_tokens=3) as lease:
        assert_type(lease, Lease)
    with acting_as("bob", tier="pro", org="acme"), guard.hold() as held:
        held.record(input_tokens=1, output_tokens=2)
        assert_type(held.model, str | None)


def length(text: str) -> int:
    raise NotImplementedError


async def alength(text: str) -> int:
    raise NotImplementedError


async def jobs(source: AsyncIterator[str]) -> None:
    for result in guard.map(length, ["text"]):
        assert_type(result, int)
    for done in guard.map(length, ["text"], errors="collect", ordered=False):
        assert_type(done, Done[str, int])
    async for result in guard.amap(alength, source, resume="job.jsonl", key=str):
        assert_type(result, int)
    async for done in guard.amap(alength, ["text"], errors="collect"):
        assert_type(done.result, int | None)
    guard.map(length, [3])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
