"""OpenAI, and Azure OpenAI: which requests spend, and where their answers say how much."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeGuard
from urllib.parse import unquote

from ..usage import Usage
from . import Route, Tally, Told, field, is_in, path_of, patterns, usage_of
from .told import DAY, MINUTE, Quota, duration, number, retry_after

METERED: Mapping[str, str] = {
    "/chat/completions": "chat",
    "/completions": "completions",
    "/embeddings": "embeddings",
    "/responses": "responses",
    "/responses/compact": "responses",
}
"""POST paths that are metered -> the endpoint's name."""

UNMETERED: Mapping[str, str] = {
    "/agents/automations": "runs later, on the server; its usage is not in the answer",
    "/agents/automations/{}/invocations": "runs on the server; its usage is not in the answer",
    "/agents/automations/{}/resume": "runs later, on the server; its usage is not in the answer",
    "/agents/sessions": "runs on the server; its usage is not in the answer",
    "/agents/sessions/{}": "runs on the server; its usage is not in the answer",
    "/agents/sessions/{}/events": "runs on the server; its usage is not in the answer",
    "/audio/speech": "billed by audio; its answer is bytes",
    "/audio/transcriptions": "billed by audio or tokens, not counted before the call",
    "/audio/translations": "billed by audio",
    "/batches": "spends later, on the server",
    "/chatkit/sessions": "spends between a browser and the server",
    "/decisions": "its answer does not say what it used",
    "/evals/{}/runs": "spends later, on the server",
    "/fine_tuning/alpha/graders/run": "its usage is not counted before the call",
    "/fine_tuning/jobs": "spends later, on the server",
    "/fine_tuning/jobs/{}/resume": "spends later, on the server",
    "/images/edits": "billed by image",
    "/images/generations": "billed by image",
    "/images/variations": "billed by image",
    "/live/sessions": "spends over a web socket",
    "/live/sessions/{}/accept": "spends over a web socket",
    "/live/sessions/{}/fork": "spends over a web socket",
    "/realtime/calls": "spends over a web socket",
    "/realtime/calls/{}/accept": "spends over a web socket",
    "/realtime/client_secrets": "spends over a web socket",
    "/realtime/sessions": "spends over a web socket",
    "/realtime/transcription_sessions": "spends over a web socket",
    "/realtime/translations/client_secrets": "spends over a web socket",
    "/threads/runs": "runs on the server; its usage comes with a later event",
    "/threads/{}/runs": "runs on the server; its usage comes with a later event",
    "/threads/{}/runs/{}/submit_tool_outputs": "runs on the server; its usage comes later",
    "/videos": "billed by seconds of video",
    "/videos/characters": "billed by seconds of video",
    "/videos/edits": "billed by seconds of video",
    "/videos/extensions": "billed by seconds of video",
    "/videos/{}/remix": "billed by seconds of video",
}
"""POST paths that spend without telling how much in a way we can meter -> why."""

FREE: tuple[str, ...] = (
    "/agents",
    "/agents/{}",
    "/agents/automations/{}",
    "/agents/automations/{}/pause",
    "/agents/environments",
    "/agents/environments/{}/files",
    "/agents/environments/templates",
    "/agents/environments/templates/{}",
    "/assistants",
    "/assistants/{}",
    "/audio/voice_consents",
    "/audio/voice_consents/{}",
    "/audio/voices",
    "/batches/{}/cancel",
    "/chat/completions/{}",
    "/chatkit/sessions/{}/cancel",
    "/containers/**",
    "/content_provenance_checks",
    "/conversations",
    "/conversations/{}",
    "/conversations/{}/items",
    "/evals",
    "/evals/{}",
    "/evals/{}/runs/{}/cancel",
    "/files",
    "/fine_tuning/alpha/graders/validate",
    "/fine_tuning/checkpoints/{}/permissions",
    "/fine_tuning/jobs/{}/cancel",
    "/fine_tuning/jobs/{}/pause",
    "/live/sessions/{}/hangup",
    "/live/sessions/{}/refer",
    "/live/sessions/{}/reject",
    "/moderations",
    "/organization/**",
    "/projects/**",
    "/realtime/calls/{}/hangup",
    "/realtime/calls/{}/refer",
    "/realtime/calls/{}/reject",
    "/responses/{}/cancel",
    "/responses/input_tokens",
    "/skills/**",
    "/threads",
    "/threads/{}",
    "/threads/{}/messages",
    "/threads/{}/messages/{}",
    "/threads/{}/runs/{}",
    "/threads/{}/runs/{}/cancel",
    "/uploads/**",
    "/vaults/**",
    "/vector_stores/**",
    "/webhook_endpoints/**",
)
"""POST paths that generate nothing; ``**`` is all below. What no table knows may well spend."""

SOCKETS: tuple[str, ...] = (
    "beta.realtime",
    "beta.responses",
    "live",
    "live.forks",
    "live.sideband",
    "realtime",
    "realtime.translations",
    "responses",
)
"""Resources whose ``connect`` opens a web socket, past every request."""

_DEPLOYMENT = re.compile(r".*/deployments/([^/]+)(/.*)")
_LATER = re.compile(r".*/responses/(resp[^/]*)(?:/cancel)?")


class OpenAIProvider:
    """The OpenAI API as `quotaguard.providers.Provider`."""

    sockets: tuple[str, ...] = SOCKETS

    def route(self, method: str, url: str) -> Route:
        """What a request to that path is."""
        return _route(method, url)

    def asks_for_usage(self, endpoint: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Chat and completions streams say their usage only when asked to."""
        if endpoint not in ("chat", "completions"):
            return None
        options = body.get("stream_options")
        options = dict(options) if isinstance(options, Mapping) else {}
        if options.get("include_usage"):
            return None
        return {"stream_options": {**options, "include_usage": True}}

    def tally(self, endpoint: str, asked_for_usage: bool) -> OpenAITally:
        """A listener for a stream."""
        return OpenAITally(hide=asked_for_usage)

    def hides_output(self, model: str) -> bool:
        """Reasoning models generate tokens that they do not deliver."""
        return reasons(model)

    def told(self, headers: Mapping[str, str]) -> Told:
        """What ``x-ratelimit-*`` says (https://platform.openai.com/docs/guides/rate-limits)."""
        found = (_quota(headers, metric) for metric in ("requests", "tokens"))
        return Told(tuple(quota for quota in found if quota is not None), retry_after(headers))


def _quota(headers: Mapping[str, str], metric: str) -> Quota | None:
    """A limit of 0 is none: it comes with answers that were served."""
    limit = number(headers, f"x-ratelimit-limit-{metric}")
    if not limit:
        return None
    remaining = number(headers, f"x-ratelimit-remaining-{metric}")
    # Azure's own, and GitHub's; OpenAI leaves it to be worked out.
    period = number(headers, f"x-ratelimit-renewalperiod-{metric}")
    if not period:
        reset = duration(headers.get(f"x-ratelimit-reset-{metric}", ""))
        period = _period(limit, remaining, reset)
    return Quota(metric, limit, remaining, period)


def _period(limit: float, remaining: float | None, reset: float | None) -> float:
    """Whether a limit is one a minute or a day: it comes back evenly, so what is missing of it and
    the time until it is full tell how long all of it would take.
    """
    if remaining is None or reset is None or remaining >= limit:
        return MINUTE
    whole = reset * limit / (limit - remaining)
    return DAY if whole > (MINUTE * DAY) ** 0.5 else MINUTE


def reasons(model: str) -> bool:
    """Whether a model reasons before it answers."""
    return _REASONING.match(model.rpartition("/")[2]) is not None


@lru_cache(maxsize=256)
def _route(method: str, url: str) -> Route:
    path = path_of(url)
    if (later := _LATER.fullmatch(path)) is not None:
        return Route("later", "responses", response=later[1])
    if method.lower() != "post":
        return Route("free")
    deployed = _DEPLOYMENT.fullmatch(path)
    deployment = unquote(deployed[1]) if deployed is not None else None
    path = deployed[2] if deployed is not None else path
    for metered, endpoint in METERED.items():
        if path.endswith(metered) and not _is_within_a_resource(path.removesuffix(metered)):
            return Route("metered", endpoint, deployment)
    free = is_in(_FREE, path) and not is_in(_UNMETERED, path)
    return Route("free" if free else "unmetered", model=deployment)


_REASONING = re.compile(r"(o\d|gpt-([5-9]|\d\d)(?!.*chat-latest)|codex|.*reason)", re.IGNORECASE)
"""By OpenAI's model pages, November 2026: the o-series and gpt-5 and later reason."""


_USAGE_CHUNK = frozenset(
    {"id", "object", "created", "model", "choices", "usage", "service_tier", "system_fingerprint"}
    | {"obfuscation", "provider", "timings"}  # OpenAI's padding; OpenRouter's, llama.cpp's
)
"""What the chunk that says the usage consists of; one that says more is the caller's."""


_SAYS_USAGE = re.compile(rb'"usage"(?!\s*:\s*null)')
_SAYS_STATE = re.compile(rb'"response(?:"|\.(?:completed|incomplete|failed)")')


class OpenAITally(Tally):
    """What the events of a chat, completions or Responses stream add up to."""

    def __init__(self, *, hide: bool) -> None:
        super().__init__()
        self._hide = hide
        self._usage: Usage | None = None

    def tells(self, data: bytes) -> bool:
        """Words come without usage, or with none, and without the state of the response."""
        if _SAYS_USAGE.search(data) is not None:
            return True
        return b'"response' in data and _SAYS_STATE.search(data) is not None

    def _hear(self, event: Mapping[str, Any]) -> bool:
        """The usage chunk that only we asked for is not for the caller."""
        kind = event.get("type")
        if _is_of_response(kind):
            self._hear_response(kind, event)
        elif event.get("usage") is not None:
            self._usage = usage_of(event)
            self.malformed = self._usage is None
            if self._hide and event.get("choices") == [] and event.keys() <= _USAGE_CHUNK:
                return False
        return True

    def _hear_response(self, kind: str, event: Mapping[str, Any]) -> None:
        response = event.get("response")
        if field(response, "background") is True:
            self.background = str(field(response, "id"))
        if kind in ("response.completed", "response.incomplete", "response.failed"):
            self.over = True
            if field(response, "usage") is not None:
                self._usage = usage_of(response)
                self.malformed = self._usage is None

    def _texts(self, event: Mapping[str, Any]) -> Iterator[object]:
        kind = event.get("type")
        if _is_of_response(kind):
            if kind.endswith(".delta"):
                yield event.get("delta")
            return
        for choice in event.get("choices") or ():
            delta = field(choice, "delta")
            if delta is None:
                yield field(choice, "text")
                continue
            for name in ("content", "refusal", "reasoning_content", "reasoning"):
                yield field(delta, name)
            for call in field(delta, "tool_calls") or ():
                function = field(call, "function")
                yield field(function, "name")
                yield field(function, "arguments")

    def usage(self) -> Usage | None:
        """What the final chunk or event said."""
        return self._usage


def _is_of_response(kind: object) -> TypeGuard[str]:
    return isinstance(kind, str) and kind.startswith("response.")


def _is_within_a_resource(prefix: str) -> bool:
    """Whether a path's beginning names a resource, rather than being a base path like /v1."""
    return any(part in _RESOURCES for part in prefix.split("/"))


_FREE = patterns(FREE)
_UNMETERED = patterns(UNMETERED)
_RESOURCES = frozenset(
    {"agents", "assistants", "audio", "batches", "chat", "containers", "conversations", "evals"}
    | {"files", "fine_tuning", "images", "realtime", "threads", "uploads", "vector_stores"}
)
