"""Calls of the tests: with an SDK's client, blocking or awaited, or with none."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable
from typing import Any, NamedTuple

Use = Callable[[Any], Any]
Call = Callable[[Use], Any]


def chat(**more: Any) -> dict[str, Any]:
    """The arguments of a small chat request of three words."""
    message = {"role": "user", "content": "three small words"}
    return {"model": "gpt-4o-mini", "messages": [message], **more}


def message(**more: Any) -> dict[str, Any]:
    """The arguments of a small Anthropic request of three words."""
    return {**chat(model="claude-test", max_tokens=100), **more}


def caller(blocking: type[Any], awaited: type[Any], how: str, **settings: Any) -> Call:
    """What makes a client, has a call made with it, and gives back what that came to.

    `how` is `sync` or `async`. A stream comes back as the list of its items.
    """

    def call(use: Use) -> Any:
        if how == "sync":
            with blocking(**settings) as client:
                return _finish(use(client))

        async def main() -> Any:
            async with awaited(**settings) as client:
                return await _afinish(use(client))

        return asyncio.run(main())

    return call


def _finish(outcome: Any) -> Any:
    if not hasattr(outcome, "__next__"):
        return outcome
    with outcome:
        return list(outcome)


async def _afinish(outcome: Any) -> Any:
    if hasattr(outcome, "__await__"):
        outcome = await outcome
    if not hasattr(outcome, "__aiter__") or not hasattr(outcome, "__anext__"):
        return outcome
    async with outcome:
        return [item async for item in outcome]


class Raw(NamedTuple):
    """One HTTP answer as it came, read by nothing that knows an SDK."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.content)

    @property
    def events(self) -> list[Any]:
        """The data of each server-sent event, parsed; a `[DONE]` as it is."""
        data = [line[6:] for line in self.content.decode().split("\n") if line[:6] == "data: "]
        return [line if line == "[DONE]" else json.loads(line) for line in data]


class RawClient:
    """One kept connection of the standard library's."""

    def __init__(self, url: str) -> None:
        self.connection = http.client.HTTPConnection(url.rpartition("/")[2])

    def __call__(
        self,
        path: str,
        body: Any = None,
        method: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Raw:
        """Sends one request, a body that is not bytes as JSON, and reads the answer."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body)
        verb = method or ("GET" if body is None else "POST")
        self.connection.request(verb, path, content, headers or {})
        response = self.connection.getresponse()
        received = {name.lower(): value for name, value in response.getheaders()}
        return Raw(response.status, received, response.read())
