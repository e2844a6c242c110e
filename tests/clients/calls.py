"""What the tests of traps call, and how they listen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quotaguard.events import Event
from quotaguard.testing import Reply
from tests.clients.clients import PLAIN_ANTHROPIC, PLAIN_OPENAI
from tests.clients.kit import each

WORDS = [{"role": "user", "content": "three small words"}]
CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": WORDS}
MESSAGE: dict[str, Any] = {"model": "claude-test", "max_tokens": 100, "messages": WORDS}
BOTH = [(PLAIN_OPENAI, "chat.completions", CHAT), (PLAIN_ANTHROPIC, "messages", MESSAGE)]
each_sdk = pytest.mark.parametrize(
    ("kind", "holder", "arguments"), BOTH, ids=["openai", "anthropic"]
)


def create(client: Any, holder: str) -> Callable[..., Any]:
    """The ``create`` of a resource, by its dotted path."""
    for name in holder.split("."):
        client = getattr(client, name)
    found: Callable[..., Any] = client.create
    return found


class Heard:
    """A hook that keeps all events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event, /) -> None:
        """Take note."""
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


async def chunks_of(stream: Any) -> list[Any]:
    """All chunks of a stream."""
    return [chunk async for chunk in each(stream)]


def sse(*events: str, end: str = "\n\n") -> Reply:
    """A stream of events as they are."""
    body = end.join(f"data: {event}" for event in events) + end
    return Reply(body=body.encode(), content_type="text/event-stream")
