"""A consumer of a stream, and what it is to be charged."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import openai

from quotaguard import receipt
from quotaguard.counting import count_delivered
from quotaguard.events import Event, Settled
from quotaguard.testing import FakeProvider
from tests.clients.clients import PLAIN_ANTHROPIC, PLAIN_OPENAI, Kind
from tests.clients.kit import Spent, got, new_guard, reach

HTTP_ERRORS = tuple(
    import_module(name).HTTPError for name in ("httpx", "httpx2") if find_spec(name) is not None
)
"""What a stream may raise past the SDK."""
INPUT = 77
TEXT = "This answer was made up by a provider that runs on this machine."
READ = "This answer was"
"""What has arrived when a stream ends that ends early."""


class Source(NamedTuple):
    """A streaming call, and where its events carry text."""

    name: str
    kind: Kind
    path: str
    arguments: dict[str, Any]
    text: Callable[[Any], str | None]
    input_is_said: bool = False
    """Whether the stream begins by saying its input."""

    def __str__(self) -> str:
        return self.name


def _chat_text(chunk: Any) -> str | None:
    text: str | None = chunk.choices[0].delta.content
    return text


def _response_text(event: Any) -> str | None:
    return event.delta if event.type == "response.output_text.delta" else None


def _message_text(event: Any) -> str | None:
    return event.delta.text if event.type == "content_block_delta" else None


_WORDS = [{"role": "user", "content": "three small words"}]
_CHAT = {"model": "gpt-4o-mini", "messages": _WORDS}
_MESSAGE = {"model": "claude-test", "max_tokens": 100, "messages": _WORDS}
_RESPONSE = {"model": "gpt-4o-mini", "input": "three small words"}
SOURCES = [
    Source("chat", PLAIN_OPENAI, "chat.completions.create", _CHAT, _chat_text),
    Source("messages", PLAIN_ANTHROPIC, "messages.create", _MESSAGE, _message_text, True),
]
if hasattr(openai.OpenAI, "responses"):
    SOURCES.append(Source("responses", PLAIN_OPENAI, "responses.create", _RESPONSE, _response_text))


class Told:
    """A hook that keeps the settlements."""

    def __init__(self) -> None:
        self.settled: list[Settled] = []

    def __call__(self, event: Event, /) -> None:
        """Take note."""
        if isinstance(event, Settled):
            self.settled.append(event)


class Talk:
    """One streaming call in the hands of a consumer."""

    def __init__(self, way: str, source: Source, provider: FakeProvider) -> None:
        self.source = source
        self.told = Told()
        self.guard = new_guard(hooks=[self.told])
        self.client = source.kind.make(way, provider, self.guard)
        self.stream: Any = None
        self.receipt: Any = None

    async def begin(self, **more: Any) -> Any:
        """Make the call."""
        call = reach(self.client, self.source.path)
        self.stream = await got(call(**{**self.source.arguments, "stream": True, **more}))
        self.receipt = receipt(self.stream)
        return self.stream

    async def read(self, stop: Callable[[], Any] | None = None) -> None:
        """Read as far as `READ`, as a consumer does that then breaks off, or calls ``stop``."""
        seen: list[str] = []
        if hasattr(self.stream, "__aiter__"):
            async for event in self.stream:
                if self._has_seen(event, seen):
                    break
        else:
            for event in self.stream:
                if self._has_seen(event, seen):
                    break
        assert "".join(seen).strip() == READ
        if stop is not None:
            stop()

    def _has_seen(self, event: Any, seen: list[str]) -> bool:
        seen.append(self.source.text(event) or "")
        return len("".join(seen).split()) == 3

    async def drop(self) -> None:
        """Let go of the stream, as a consumer that forgot it.

        A task that breaks off leaves a generator that the event loop closes first, and openai's
        ``AsyncStream`` is a cycle of references then.
        """
        self.stream = None
        for _ in range(3):
            await asyncio.sleep(0)
            gc.collect()

    async def settled(self) -> None:
        """Wait until all is settled: a finalizer's work is done within a second, by a thread."""
        deadline = time.monotonic() + 1.0
        while self.guard.backend.open_reservations:
            assert time.monotonic() < deadline, "a stream was not settled within a second"
            await asyncio.sleep(0.002)
        assert len(self.told.settled) == 1

    def delivered(self, text: str, provider: FakeProvider) -> Spent:
        """What is to be charged for a stream that brought so much and then no more."""
        said = INPUT if self.source.input_is_said and text else None
        asked: int = self.receipt.reserved.input_tokens if said is None else said
        output = count_delivered(text, self.source.arguments["model"]) if text else 0
        return Spent(asked + output, asked, output, 1)


async def ended(talk: Talk) -> None:
    """Wait for the settlement, then give the connection back."""
    await talk.settled()
    await got(talk.client.close())
