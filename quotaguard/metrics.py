"""What limits count."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .usage import Usage
from .weights import Measure


def _requests(usage: Usage, _: str | None) -> float:
    return usage.requests


def _tokens(usage: Usage, _: str | None) -> float:
    return usage.input_tokens + usage.output_tokens


def _input_tokens(usage: Usage, _: str | None) -> float:
    return usage.input_tokens


def _output_tokens(usage: Usage, _: str | None) -> float:
    return usage.output_tokens


def _usd(usage: Usage, _: str | None) -> float:
    if usage.nano_usd is None:
        raise ValueError(f"the cost of {usage!r} was not asked for")
    return usage.nano_usd


def _concurrent(_: Usage, __: str | None) -> float:
    return 0.0  # of a call that ended; one in flight takes 1 (`quotaguard.rules`)


METRICS: Mapping[str, Measure] = MappingProxyType(
    {
        "requests": _requests,
        "tokens": _tokens,
        "input_tokens": _input_tokens,
        "output_tokens": _output_tokens,
        "usd": _usd,
        "concurrent": _concurrent,
    }
)
"""Metric name -> how to measure a call. A new metric is one entry here."""
