"""Which API a path belongs to, whatever prefix comes before it."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple
from urllib.parse import unquote

Flavour = Literal["openai", "azure", "anthropic", "bedrock", "vertex"]


class Route(NamedTuple):
    """A path understood: the endpoint, whose shapes it speaks, and what the path itself names."""

    endpoint: str | None
    """`None`: no such path; the answer is a 404 in the flavour's shape."""
    flavour: Flavour
    model: str | None = None
    response_id: str | None = None
    streamed: bool | None = None
    """`None`: the request's body says whether the answer is streamed."""


# A flavour of None is the client's: paths that OpenAI, Azure or Anthropic have alike.
_ENDPOINTS: tuple[tuple[str, str, Flavour | None, str], ...] = (
    ("POST", "chat", None, r"/chat/completions"),
    ("POST", "completions", None, r"/completions"),
    ("POST", "embeddings", None, r"/embeddings"),
    ("POST", "compact", None, r"/responses/compact"),
    ("POST", "input_tokens", None, r"/responses/input_tokens"),
    ("POST", "cancel", None, r"/responses/(?P<id>[^/]+)/cancel"),
    ("POST", "responses", None, r"/responses"),
    ("GET", "retrieve", None, r"/responses/(?P<id>[^/]+)"),
    ("POST", "count_tokens", "anthropic", r"/messages/count_tokens"),
    ("POST", "messages", "anthropic", r"/messages"),
    ("POST", "count_tokens", "vertex", r"/models/count-tokens:rawPredict"),
    ("POST", "messages", "vertex", r"/models/(?P<model>[^/]+):(?P<whole>rawPredict)"),
    ("POST", "messages", "vertex", r"/models/(?P<model>[^/]+):(?P<stream>streamRawPredict)"),
    ("POST", "messages", "bedrock", r"/model/(?P<model>[^/]+)/(?P<whole>invoke)"),
    ("POST", "messages", "bedrock", r"/model/(?P<model>[^/]+)/(?P<stream>invoke-with-[^/]+)"),
    ("GET", "models", None, r"/models"),
    ("GET", "model", None, r"/models/(?P<model>[^/]+)"),
)
_PATTERNS: tuple[tuple[str, str, Flavour | None, re.Pattern[str]], ...] = tuple(
    (verb, endpoint, flavour, re.compile(path + "$"))
    for verb, endpoint, flavour, path in _ENDPOINTS
)
_DEPLOYMENT = re.compile(r"/deployments/([^/]+)/")


@lru_cache(maxsize=1024)
def find_route(method: str, path: str, client: Flavour) -> Route:
    """The route of a path without its query, still percent-encoded, as asked by such a client."""
    for verb, endpoint, flavour, pattern in _PATTERNS:
        found = pattern.search(path) if verb == method else None
        if found is None:
            continue
        names = found.groupdict()
        model, response_id = names.get("model"), names.get("id")
        deployment = _DEPLOYMENT.search(path)
        if deployment is not None:
            model = deployment[1]
        return Route(
            endpoint,
            flavour or client,
            unquote(model) if model else None,
            unquote(response_id) if response_id else None,
            True if names.get("stream") else False if names.get("whole") else None,
        )
    return Route(None, client)
