"""How many tokens a request lets the model answer with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .body import fields_of, get, items_of, number

_MAXIMA = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def output_allowance(endpoint: str, request: Mapping[str, Any]) -> int | None:
    """The most output tokens the request itself allows, or None where it states no maximum.

    The larger of ``max_tokens``, ``max_completion_tokens`` and ``max_output_tokens``, times the
    answers asked for. Thinking is part of the maximum, except where its budget is the larger one
    (interleaved thinking). Embeddings answer with none.
    """
    if endpoint == "embeddings":
        return 0
    stated = [number(get(request, key)) for key in _MAXIMA if key in request]
    known = [n for n in stated if n is not None and n >= 0]
    if not known:
        return None
    maximum = max(known)
    if "thinking" in request:
        budget = number(get(fields_of(get(request, "thinking")), "budget_tokens")) or 0
        maximum = max(maximum, budget)
    return maximum * answers(endpoint, request)


def answers(endpoint: str, request: Mapping[str, Any]) -> int:
    """How many answers one request asks for: ``n``, or in legacy completions ``best_of``, for each
    prompt.
    """
    count = max(1, number(get(request, "n")) or 1) if "n" in request else 1
    if endpoint != "completions":
        return count
    count = max(count, number(get(request, "best_of")) or 1)
    prompts = items_of(get(request, "prompt"))
    return count * max(1, sum(isinstance(item, (str, list, tuple)) for item in prompts))
