"""The endpoints by name: what each asks of a request, and the shapes it answers in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from . import chat, messages, responses
from .answers import Answer, Event, Json
from .routes import Flavour


class Endpoint(NamedTuple):
    """An endpoint that generates, and so has a usage."""

    requires: tuple[str, ...]
    body: Callable[[Answer], Json]
    events: Callable[[Answer], Iterator[Event]] | None = None
    speaks: bool = True
    """Whether its answer is text, and so costs output tokens."""


GENERATING = {
    "chat": Endpoint(("model", "messages"), chat.chat_body, chat.chat_events),
    "completions": Endpoint(("model", "prompt"), chat.completion_body, chat.completion_events),
    "embeddings": Endpoint(("model", "input"), chat.embedding_body, speaks=False),
    # A stored prompt may bring model and input, so neither is required of the request.
    "responses": Endpoint((), responses.response_body, responses.response_events),
    "compact": Endpoint(("model",), responses.compaction_body),
    "messages": Endpoint(
        ("model", "messages", "max_tokens"), messages.message_body, messages.message_events
    ),
}


def missing(endpoint: Endpoint, request: Json, model: str | None) -> str | None:
    """The first required field that a request lacks; `model` may have come in the path."""
    for name in endpoint.requires:
        if request.get(name) is None and not (name == "model" and model):
            return name
    return None


def error_event(endpoint: str) -> Event:
    """The event by which a stream of an endpoint tells that it failed."""
    message = "The server had an error while processing your request."
    if endpoint == "messages":
        error = {"type": "overloaded_error", "message": message}
        return Event({"type": "error", "error": error}, "error")
    if endpoint == "responses":
        fields = {"code": "server_error", "message": message, "param": None}
        return Event({"type": "error", **fields, "sequence_number": 0}, "error")
    return Event(
        {"error": {"message": message, "type": "server_error", "param": None, "code": None}}
    )


def model_list(names: Sequence[str], flavour: Flavour) -> Json:
    """The list of the models."""
    data = [model_entry(name, flavour) for name in names]
    if flavour != "anthropic":
        return {"object": "list", "data": data}
    return {
        "data": data,
        "has_more": False,
        "first_id": names[0] if names else None,
        "last_id": names[-1] if names else None,
    }


def model_entry(name: str, flavour: Flavour) -> Json:
    """One model."""
    if flavour == "anthropic":
        made = "2025-01-01T00:00:00Z"
        return {"type": "model", "id": name, "display_name": name, "created_at": made}
    return {"id": name, "object": "model", "created": 1735689600, "owned_by": "quotaguard"}


def token_count(answer: Answer, flavour: Flavour) -> Json:
    """The answer to a request to count tokens; nothing is generated, so it has no usage."""
    kind = {"object": "response.input_tokens"} if flavour in ("openai", "azure") else {}
    return {"input_tokens": answer.input_tokens, **kind}
