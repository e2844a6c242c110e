"""Anthropic, directly and through Bedrock and Vertex: which requests spend, and how much."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from ..usage import Usage
from . import Route, field, path_of, usage_of

METERED: Mapping[str, str] = {
    "/v1/messages": "messages",
    "/v1/complete": "completions",
    "/model/{}/invoke": "messages",
    "/model/{}/invoke-with-response-stream": "messages",
    "/publishers/anthropic/models/{}:rawPredict": "messages",
    "/publishers/anthropic/models/{}:streamRawPredict": "messages",
}
"""POST paths that are metered -> the endpoint's name."""

UNMETERED: Mapping[str, str] = {
    "/v1/deployments/{}/run": "runs on the server; its usage is not in the answer",
    "/v1/dreams": "runs on the server; its usage is not in the answer",
    "/v1/messages/batches": "spends later, on the server",
    "/v1/sessions": "runs on the server; its usage is not in the answer",
    "/v1/sessions/{}": "runs on the server; its usage is not in the answer",
    "/v1/sessions/{}/events": "runs on the server; its usage is not in the answer",
}
"""POST paths that spend without telling how much in a way we can meter -> why."""

SOCKETS: tuple[str, ...] = ()


class AnthropicProvider:
    """The Messages API as `quotaguard.providers.Provider`."""

    def route(self, method: str, url: str) -> Route:
        """What a request to that path is."""
        if method.lower() != "post":
            return Route("free")
        path = path_of(url)
        for pattern, endpoint in _METERED:
            if (found := pattern.fullmatch(path)) is not None:
                model = unquote(found[1]) if pattern.groups else None
                if model == "count-tokens":  # how Vertex spells count_tokens
                    return Route("free")
                return Route("metered", endpoint, model)
        unmetered = any(pattern.fullmatch(path) for pattern in _UNMETERED)
        return Route("unmetered" if unmetered else "free")

    def asks_for_usage(self, endpoint: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Every stream says its usage."""
        return None

    def tally(self, endpoint: str, asked_for_usage: bool) -> AnthropicTally:
        """A listener for a stream."""
        return AnthropicTally()

    def hides_output(self, model: str) -> bool:
        """Thinking is delivered (a summary at least), or billed in message_delta."""
        return False


class AnthropicTally:
    """What the events of a Messages stream add up to.

    ``message_start`` says the input; ``message_delta`` the output so far, cumulative, the last one
    just before the end (https://docs.anthropic.com/en/api/messages-streaming).
    """

    def __init__(self) -> None:
        self._start: object = None
        self._last: dict[str, Any] = {}
        self._texts: list[str] = []
        self._final = False
        self.over = False
        self.malformed = False

    def hear(self, event: Mapping[str, Any]) -> bool:
        """Take note of an event."""
        kind = event.get("type")
        if kind == "message_start":
            self._start = field(event.get("message"), "usage")
        elif kind == "message_delta":
            usage = event.get("usage")
            if isinstance(usage, Mapping):
                self._last = {key: value for key, value in usage.items() if value is not None}
                self._final = "output_tokens" in self._last
                self.malformed = self._final and self._merged() is None
        elif kind == "message_stop":
            self.over = True
        elif kind == "content_block_delta":
            delta = event.get("delta")
            for name in ("text", "thinking", "partial_json"):
                text = field(delta, name)
                if isinstance(text, str):
                    self._texts.append(text)
        return True

    def usage(self) -> Usage | None:
        """What the start and the last delta said together."""
        return self._merged() if self._final else None

    def _merged(self) -> Usage | None:
        start = self._start if isinstance(self._start, Mapping) else {}
        return usage_of({**start, **self._last})

    def cut_off(self, count: Callable[[str], int]) -> tuple[int | None, int]:
        """The start has said the input; the output is what was delivered."""
        merged = self._merged()
        said = merged.input_tokens if merged is not None else None
        return said, count("".join(self._texts))


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(r".*?" + re.escape(path).replace(r"\{\}", r"([^/]+)"))


_METERED = tuple((_pattern(path), endpoint) for path, endpoint in METERED.items())
_UNMETERED = tuple(_pattern(path) for path in UNMETERED)
