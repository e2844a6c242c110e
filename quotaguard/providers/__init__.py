"""Providers: their paths, bodies and usage as pure functions, without their SDKs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from ..usage import Usage
from .tally import Tally as Tally
from .told import Told as Told

Kind: TypeAlias = Literal["metered", "unmetered", "later", "free"]
"""metered: counted before and settled after; unmetered: it generates, and so spends, but does not
say how much, or no table knows it; later: it tells what a metered background call used; free: it
generates nothing."""


class Route(NamedTuple):
    """What a request is, by its method and path."""

    kind: Kind
    endpoint: str = ""
    """For metered ones the name that counting knows: chat, completions, responses, embeddings,
    messages."""
    model: str | None = None
    """The model, where the path names it (Azure deployments, Bedrock, Vertex)."""
    response: str | None = None
    """For later ones the id of the response."""


class Provider(Protocol):
    """What the seam asks of a provider."""

    sockets: tuple[str, ...]
    """Dotted names of the SDK's resources that open web sockets."""

    def route(self, method: str, url: str) -> Route:
        """What a request is; the URL may be a path, and may have a base path and a query."""
        ...

    def asks_for_usage(self, endpoint: str, body: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What to add to a streaming request so that its stream says its usage; None: nothing."""
        ...

    def tally(self, endpoint: str, asked_for_usage: bool) -> Tally:
        """A listener for a stream of that endpoint."""
        ...

    def hides_output(self, model: str) -> bool:
        """Whether the model generates tokens that it does not deliver (reasoning)."""
        ...

    def told(self, headers: Mapping[str, str]) -> Told:
        """What an answer's headers say of the provider's own limits; what can't be read is left
        out.
        """
        ...


def path_of(url: str) -> str:
    """The path of a URL or of a path that may have a query, with a slash before and none behind."""
    from urllib.parse import urlsplit  # it takes longer to load than most of this package

    return "/" + urlsplit(url).path.strip("/")


def patterns(paths: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    """Patterns for paths below any base path: ``{}`` is one part, ``/**`` at the end all below."""
    return tuple(
        re.compile(
            ".*?" + re.escape(path).replace(r"/\*\*", "(?:/.*)?").replace(r"\{\}", "([^/]+)")
        )
        for path in paths
    )


def is_in(table: Iterable[re.Pattern[str]], path: str) -> bool:
    """Whether a table has the path."""
    return any(pattern.fullmatch(path) for pattern in table)


def usage_of(response: object) -> Usage | None:
    """The usage of a provider's response, whole: an SDK model or JSON, or its usage object itself.

    None where there is none, or where it is not what the provider documents (a count that is no
    whole number, a missing field): what can't be read is not taken for zero. An explicit zero is
    real.
    """
    usage = field(response, "usage")
    usage = _fields(response if usage is None else usage)
    spent_in = _count(usage, "prompt_tokens", "input_tokens", "inputTokens")
    if spent_in is None:
        return None
    spent_out = _count(usage, "completion_tokens", "output_tokens", "outputTokens")
    if spent_out is None:
        # Embeddings have no output; everything else that leaves it out is malformed.
        if usage.get("total_tokens") != spent_in:
            return None
        spent_out = 0
    cached = _part(usage, ("prompt_tokens_details", "input_tokens_details"), "cached_tokens")
    reasoning = _part(
        usage, ("completion_tokens_details", "output_tokens_details"), "reasoning_tokens"
    )
    # Anthropic counts what it read from and wrote to its cache beside the input, OpenAI within it.
    read = _whole(usage.get("cache_read_input_tokens")) or 0
    written = _whole(usage.get("cache_creation_input_tokens")) or 0
    return Usage(1, spent_in + read + written, spent_out, cached + read, written, reasoning)


def field(holder: object, name: str) -> Any:
    """A field of a JSON object or an SDK model; None if it is absent."""
    if type(holder) is not dict:
        own = getattr(holder, "__dict__", _NO_FIELDS)  # asking for a Mapping takes its time
        if name in own:
            return own[name]
        if not isinstance(holder, Mapping):
            return getattr(holder, name, None)
    return holder.get(name)


_NO_FIELDS: Mapping[str, Any] = {}
_NAMES = (
    *("prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"),
    *("input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details"),
    *("inputTokens", "outputTokens", "total_tokens"),
    *("cache_read_input_tokens", "cache_creation_input_tokens"),
)
"""All that is read of a usage object, in every dialect."""


def _fields(usage: Any) -> Mapping[str, Any]:
    """A usage object as a mapping: asking a pydantic model for a field that it lacks is slow."""
    if type(usage) is dict:
        return usage
    try:
        return {**usage.__dict__, **(usage.__pydantic_extra__ or {})}
    except AttributeError:  # no pydantic model
        if isinstance(usage, Mapping):
            return usage
        return {name: getattr(usage, name, None) for name in _NAMES}


def _count(fields: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        if (value := _whole(fields.get(name))) is not None:
            return value
    return None


def _part(fields: Mapping[str, Any], holders: tuple[str, ...], name: str) -> int:
    for holder in holders:
        if (details := fields.get(holder)) is not None:
            return _whole(field(details, name)) or 0
    return 0


def _whole(value: object) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if whole else None  # type: ignore[return-value]
