"""Tokens before the call: exact where they can be, safe where they can't.

Pure functions of an endpoint's name and a request body; no SDK, and no network but tiktoken's own
first use. Useful by itself: ``count_request("chat", body)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .anthropic import claude_text, count_messages
from .body import get
from .calibration import Calibration, Factor, feature_class
from .chat import count_chat
from .encodings import EngineStatus, engines, use_engine
from .learned import LearnedOutput
from .models import claude_rules, is_claude, openai_rules
from .openai import count_plain
from .output import answers, output_allowance
from .parts import Parts
from .responses import count_responses
from .tokens import Bytes, Exact, LimitPassed, Tok

DEFAULT_PRIOR = 512
"""Output tokens assumed for an answer of which nothing is known yet."""

ENDPOINTS = ("chat", "responses", "messages", "embeddings", "completions")

_CLAUDE_YARDSTICK = "cl100k_base"
_NEWEST_ENCODING = "o200k_base"
_LEAST_CLAUDE_TOKENS = 0.97
"""The least that a token of the yardstick counts for Claude."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request is expected to use, in tokens, before it is sent.

    ``output_hard`` says that the request itself states the maximum; otherwise ``output_tokens`` is
    a guess that should never by itself refuse a call.
    """

    input_tokens: int
    output_tokens: int
    output_hard: bool


def explain_request(
    endpoint: str, request: Mapping[str, Any], *, stop_after: int | None = None
) -> Parts:
    """Input tokens of a request, by part.

    Args:
        endpoint: ``chat``, ``responses``, ``messages``, ``embeddings`` or ``completions``.
        request: the JSON body; pydantic objects, dataclasses and the SDKs' "not given" may be
            in it. It is never changed.
        stop_after: give up as soon as the count has passed this number.

    Raises:
        ValueError: there is no such endpoint.
        TypeError: the request is no mapping.
        LimitPassed: it gave up.
    """
    _check(endpoint, request)
    limit = None if stop_after is None else stop_after / _LEAST_CLAUDE_TOKENS
    return _parts(endpoint, request, lambda encoding: Exact(encoding, limit))


def count_request(
    endpoint: str, request: Mapping[str, Any], *, stop_after: int | None = None
) -> int:
    """Input tokens of a request; see ``explain_request`` for the arguments and errors.

    Args:
        stop_after: give up as soon as the count has passed this number (a limit that the request
            can't fit into); the answer is then some number above it.
    """
    try:
        return explain_request(endpoint, request, stop_after=stop_after).total
    except LimitPassed as passed:
        return passed.tokens


def bound_request(endpoint: str, request: Mapping[str, Any]) -> int:
    """The most input tokens a request can count, without a tokenizer.

    The formulas of ``count_request`` with every text taken for its bytes, so never below it.
    Takes microseconds for a prompt of some kilobytes; arguments and errors are the same.
    """
    _check(endpoint, request)
    return _parts(endpoint, request, lambda _: _BYTES).total


def count_text(text: str, model: str | None = None, *, stop_after: int | None = None) -> int:
    """Tokens of a text for a model (the newest OpenAI encoding where none is named).

    Args:
        text: any string; special-token literals count as plain text.
        model: a model's name, as in a request.
        stop_after: give up once the count has passed this number; the answer is then some number
            above it.
    """
    try:
        if model is not None and is_claude(model):
            limit = None if stop_after is None else stop_after / _LEAST_CLAUDE_TOKENS
            return claude_text(text, claude_rules(model), Exact(_CLAUDE_YARDSTICK, limit))
        encoding = openai_rules(model).encoding if model is not None else _NEWEST_ENCODING
        return Exact(encoding, stop_after)(text)
    except LimitPassed as passed:
        return passed.tokens


def count_delivered(text: str, model: str) -> int:
    """Tokens of the text of an answer, as far as it was delivered."""
    return count_text(text, model)


def estimate(endpoint: str, request: Mapping[str, Any], *, prior: int = DEFAULT_PRIOR) -> Estimate:
    """Input and output tokens of a request before it is sent.

    Args:
        endpoint: as for ``explain_request``, which says what is raised.
        request: the JSON body.
        prior: output tokens to assume for one answer where the request states no maximum.
    """
    counted = count_request(endpoint, request)
    allowed = output_allowance(endpoint, request)
    if allowed is not None:
        return Estimate(counted, allowed, output_hard=True)
    return Estimate(counted, prior * answers(endpoint, request), output_hard=False)


def engine() -> EngineStatus:
    """Which encoder counts texts in this process, why, and how to get exact counts.

    Loads the encoder if that has not happened yet, for at most the stated time.
    """
    return engines().status(_NEWEST_ENCODING)


def preload() -> None:
    """Begin to load the encoders in the background, so that no first call waits for them."""
    for encoding in (_NEWEST_ENCODING, _CLAUDE_YARDSTICK):
        engines().preload(encoding)


def loads(endpoint: str, request: Mapping[str, Any]) -> tuple[str, bool | None]:
    """The tokenizer's table that a request is counted with, and whether it is just being loaded;
    None: nobody has asked for it yet.
    """
    table = _encoding(endpoint, request)
    return table, engines().loading(table)


_BYTES = Bytes()


def _check(endpoint: str, request: object) -> None:
    if endpoint not in ENDPOINTS:
        raise ValueError(f"endpoint must be one of {', '.join(ENDPOINTS)}, not {endpoint!r}")
    if not isinstance(request, (dict, Mapping)):  # the first is told at once
        raise TypeError(f"request must be a mapping (a JSON body), not {type(request).__name__}")


def _model(request: Mapping[str, Any]) -> str | None:
    model = get(request, "model")
    return model if isinstance(model, str) else None


def _encoding(endpoint: str, request: Mapping[str, Any]) -> str:
    if endpoint == "messages":
        return _CLAUDE_YARDSTICK
    return openai_rules(_model(request)).encoding


def _parts(endpoint: str, request: Mapping[str, Any], tok_of: Callable[[str], Tok]) -> Parts:
    """Counts with what ``tok_of`` gives for an encoding."""
    model = _model(request)
    if endpoint == "messages":
        return count_messages(request, claude_rules(model), tok_of(_CLAUDE_YARDSTICK))
    rules = openai_rules(model)
    tok = tok_of(rules.encoding)
    if endpoint == "chat":
        return count_chat(request, rules, tok)
    if endpoint == "responses":
        return count_responses(request, rules, tok)
    return count_plain(get(request, "input" if endpoint == "embeddings" else "prompt"), tok)


__all__ = [
    "DEFAULT_PRIOR",
    "ENDPOINTS",
    "Calibration",
    "EngineStatus",
    "Estimate",
    "Factor",
    "LearnedOutput",
    "LimitPassed",
    "Parts",
    "bound_request",
    "count_delivered",
    "count_request",
    "count_text",
    "engine",
    "estimate",
    "explain_request",
    "feature_class",
    "loads",
    "output_allowance",
    "preload",
    "use_engine",
]
