"""The surfaces: every way of each SDK to make a metered call, as far as this version has it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import anthropic
import openai
from pydantic import BaseModel

from tests.clients.kit import each, entered, got, reach


class Reckoning(BaseModel):
    """What structured answers are parsed into."""

    answer: str


class Surface(NamedTuple):
    """A method of a client, by its dotted path, and arguments for it."""

    path: str
    arguments: Mapping[str, Any]
    manager: bool = False
    """Whether it gives a context manager around a stream (``messages.stream`` and its like)."""

    @property
    def streams(self) -> bool:
        """Whether the answer comes in pieces."""
        return self.manager or bool(self.arguments.get("stream"))

    def __str__(self) -> str:
        return self.path + "-stream" * bool(self.arguments.get("stream"))


WORDS = "three small words"
_CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": WORDS}]}
_TEXT = {"model": "gpt-3.5-turbo-instruct", "prompt": WORDS}
_RESPONSE = {"model": "gpt-4o-mini", "input": WORDS}
_VECTOR = {"model": "text-embedding-3-small", "input": WORDS}
_MESSAGE = {**_CHAT, "model": "claude-test", "max_tokens": 100}

_OPENAI = (
    Surface("chat.completions.create", _CHAT),
    Surface("chat.completions.create", {**_CHAT, "stream": True}),
    Surface("chat.completions.parse", {**_CHAT, "response_format": Reckoning}),
    Surface("chat.completions.stream", _CHAT, manager=True),
    Surface("completions.create", _TEXT),
    Surface("completions.create", {**_TEXT, "stream": True}),
    Surface("embeddings.create", _VECTOR),
    Surface("responses.create", _RESPONSE),
    Surface("responses.create", {**_RESPONSE, "stream": True}),
    Surface("responses.parse", {**_RESPONSE, "text_format": Reckoning}),
    Surface("responses.stream", _RESPONSE, manager=True),
    Surface("responses.compact", _RESPONSE),
    Surface("beta.chat.completions.create", _CHAT),
    Surface("beta.chat.completions.parse", {**_CHAT, "response_format": Reckoning}),
    Surface("beta.chat.completions.stream", _CHAT, manager=True),
    Surface("beta.responses.create", _RESPONSE),
    Surface("beta.responses.create", {**_RESPONSE, "stream": True}),
    Surface("beta.responses.compact", _RESPONSE),
)
_ANTHROPIC = tuple(
    surface
    for where in ("messages", "beta.messages")
    for surface in (
        Surface(f"{where}.create", _MESSAGE),
        Surface(f"{where}.create", {**_MESSAGE, "stream": True}),
        Surface(f"{where}.parse", {**_MESSAGE, "output_format": Reckoning}),
        Surface(f"{where}.stream", _MESSAGE, manager=True),
    )
)


def _present(client: Any, surfaces: tuple[Surface, ...]) -> list[Surface]:
    return [surface for surface in surfaces if reach(client, surface.path) is not None]


OPENAI = _present(openai.OpenAI(api_key="test"), _OPENAI)
ANTHROPIC = _present(anthropic.Anthropic(api_key="test"), _ANTHROPIC)

Reading = Callable[[Any], Awaitable[Any]]
"""What a caller does with a response it was handed."""


async def parsed(response: Any) -> Any:
    """As most do: the SDK's object, or all of its stream."""
    answer = await got(response.parse())
    return await drained(answer)


async def drained(answer: Any) -> Any:
    """A stream is read to its end, all else is left alone."""
    if hasattr(answer, "__stream__"):
        async for _ in each(answer):
            pass
    return answer


async def lines(response: Any) -> None:
    """Line by line."""
    async for _ in each(response.iter_lines()):
        pass


async def chunks(response: Any) -> None:
    """As bytes."""
    async for _ in each(response.iter_bytes()):
        pass


async def text(response: Any) -> None:
    """As text."""
    async for _ in each(response.iter_text()):
        pass


async def whole(response: Any) -> None:
    """At once."""
    await got(response.read())


async def raw(response: Any) -> None:
    """Past the SDK, as it came over the wire."""
    http = response.http_response
    awaited = "Async" in http.stream.__class__.__name__
    async for _ in each(http.aiter_raw() if awaited else http.iter_raw()):
        pass


READINGS: tuple[Reading, ...] = (parsed, lines, chunks, text, whole, raw)


async def called(client: Any, surface: Surface) -> Any:
    """Call a surface plainly, reading what it gives to its end."""
    result = reach(client, surface.path)(**surface.arguments)
    if not surface.manager:
        return await drained(await got(result))
    async with entered(result) as stream:
        async for _ in each(stream):
            pass
        return stream


def with_prefix(surface: Surface, prefix: str) -> str:
    """The path of ``with_raw_response`` or ``with_streaming_response`` of a surface."""
    holder, _, method = surface.path.rpartition(".")
    return f"{holder}.{prefix}.{method}"
