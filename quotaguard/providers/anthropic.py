"""Anthropic, directly and through Bedrock and Vertex: which requests spend, and how much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from ..usage import Usage
from . import Route, Tally, Told, field, is_in, path_of, patterns, usage_of
from .told import Quota, number, retry_after

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
    "/v1/deployments": "runs later, on the server; its usage is not in the answer",
    "/v1/deployments/{}/run": "runs on the server; its usage is not in the answer",
    "/v1/deployments/{}/unpause": "runs later, on the server; its usage is not in the answer",
    "/v1/dreams": "runs on the server; its usage is not in the answer",
    "/v1/messages/batches": "spends later, on the server",
    "/v1/sessions": "runs on the server; its usage is not in the answer",
    "/v1/sessions/{}": "runs on the server; its usage is not in the answer",
    "/v1/sessions/{}/events": "runs on the server; its usage is not in the answer",
}
"""POST paths that spend without telling how much in a way we can meter -> why."""

FREE: tuple[str, ...] = (
    "/v1/agents",
    "/v1/agents/{}",
    "/v1/agents/{}/archive",
    "/v1/compliance/**",
    "/v1/deployments/{}",
    "/v1/deployments/{}/archive",
    "/v1/deployments/{}/pause",
    "/v1/dreams/{}/archive",
    "/v1/dreams/{}/cancel",
    "/v1/environments/**",
    "/v1/files",
    "/v1/memory_stores/**",
    "/v1/messages/batches/{}/cancel",
    "/v1/messages/count_tokens",
    "/v1/organizations/**",
    "/v1/sessions/{}/archive",
    "/v1/sessions/{}/resources",
    "/v1/sessions/{}/resources/{}",
    "/v1/sessions/{}/threads/{}/archive",
    "/v1/skills/**",
    "/v1/tunnels/**",
    "/v1/user_profiles/**",
    "/v1/vaults/**",
)
"""POST paths that generate nothing; ``**`` is all below. What no table knows may well spend."""


class AnthropicProvider:
    """The Messages API as `quotaguard.providers.Provider`."""

    sockets: tuple[str, ...] = ()

    def route(self, method: str, url: str) -> Route:
        """What a request to that path is."""
        return _route(method, url)

    def asks_for_usage(self, endpoint: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Every stream says its usage."""
        return None

    def tally(self, endpoint: str, asked_for_usage: bool) -> AnthropicTally:
        """A listener for a stream."""
        return AnthropicTally()

    def hides_output(self, model: str) -> bool:
        """Thinking is delivered (a summary at least), or billed in message_delta."""
        return False

    def told(self, headers: Mapping[str, str]) -> Told:
        """What ``anthropic-ratelimit-*`` says (https://docs.claude.com/en/api/rate-limits): limits
        a minute, toward which what is read from the prompt cache does not count.

        The times of ``-reset`` are not needed: limit and remaining tell how long it takes.
        """
        quotas = []
        for metric in ("requests", "tokens", "input_tokens", "output_tokens"):
            name = f"anthropic-ratelimit-{metric.replace('_', '-')}"
            limit = number(headers, f"{name}-limit")
            if limit:  # a limit of 0 is none: it comes with answers that were served
                quotas.append(Quota(metric, limit, number(headers, f"{name}-remaining"), cached=0))
        return Told(tuple(quotas), retry_after(headers))


@lru_cache(maxsize=256)
def _route(method: str, url: str) -> Route:
    if method.lower() != "post":
        return Route("free")
    path = path_of(url)
    for pattern, endpoint in _METERED:
        if (found := pattern.fullmatch(path)) is not None:
            model = unquote(found[1]) if pattern.groups else None
            if model == "count-tokens":  # how Vertex spells count_tokens
                return Route("free")
            return Route("metered", endpoint, model)
    free = is_in(_FREE, path) and not is_in(_UNMETERED, path)
    return Route("free" if free else "unmetered")


class AnthropicTally(Tally):
    """What the events of a Messages stream add up to.

    ``message_start`` says the input; ``message_delta`` the output so far, cumulative, the last one
    just before the end (https://docs.anthropic.com/en/api/messages-streaming).
    """

    def __init__(self) -> None:
        super().__init__()
        self._start: object = None
        self._last: dict[str, Any] = {}
        self._final = False

    def tells(self, data: bytes) -> bool:
        """Words come in events about content blocks, not about the message."""
        return b'"message_' in data

    def _hear(self, event: Mapping[str, Any]) -> bool:
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
        return True

    def _texts(self, event: Mapping[str, Any]) -> Iterator[object]:
        if event.get("type") == "content_block_delta":
            delta = event.get("delta")
            for name in ("text", "thinking", "partial_json"):
                yield field(delta, name)

    def usage(self) -> Usage | None:
        """What the start and the last delta said together."""
        return self._merged() if self._final else None

    def _merged(self) -> Usage | None:
        start = self._start if isinstance(self._start, Mapping) else {}
        return usage_of({**start, **self._last})

    def _input(self) -> int | None:
        merged = self._merged()
        return merged.input_tokens if merged is not None else None


_METERED = tuple(zip(patterns(METERED), METERED.values(), strict=True))
_UNMETERED = patterns(UNMETERED)
_FREE = patterns(FREE)
