"""Guarded clients of the anthropic SDK: subclasses of its own, in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
from anthropic import Anthropic, AsyncAnthropic, _base_client

from ..errors import ModelNotAllowed, QuotaExceeded, RequestTooLarge
from ..providers.anthropic import AnthropicProvider
from .sdk import Sdk
from .seam import AsyncSeam, SyncSeam

if TYPE_CHECKING:  # the SDK's classes, with our arguments in the constructors' types
    from ._typed_anthropic import TypedAnthropic, TypedAsyncAnthropic
else:
    TypedAnthropic = Anthropic
    TypedAsyncAnthropic = AsyncAnthropic


class AnthropicQuotaExceeded(QuotaExceeded, anthropic.RateLimitError):  # type: ignore[misc]  # status_code: int, Literal
    """`QuotaExceeded` that is an ``anthropic.RateLimitError`` too."""


class AnthropicRequestTooLarge(RequestTooLarge, anthropic.RateLimitError):  # type: ignore[misc]  # status_code: int, Literal
    """`RequestTooLarge` that is an ``anthropic.RateLimitError`` too."""


class AnthropicModelNotAllowed(ModelNotAllowed, anthropic.PermissionDeniedError):  # type: ignore[misc]  # status_code: int, Literal
    """`ModelNotAllowed` that is an ``anthropic.PermissionDeniedError`` too."""


def _body(error: QuotaExceeded | ModelNotAllowed) -> tuple[dict[str, Any], dict[str, Any]]:
    """https://docs.anthropic.com/en/api/errors: the SDK's error carries the whole."""
    kind = "rate_limit_error" if isinstance(error, QuotaExceeded) else "permission_error"
    inner = {"type": kind, "message": str(error), "quota": error.as_dict()}
    whole = {"type": "error", "error": inner}
    return whole, whole


SDK = Sdk(
    anthropic,
    _base_client,
    AnthropicProvider(),
    {
        QuotaExceeded: AnthropicQuotaExceeded,
        RequestTooLarge: AnthropicRequestTooLarge,
        ModelNotAllowed: AnthropicModelNotAllowed,
    },
    _body,
)


class GuardedAnthropic(SyncSeam, TypedAnthropic):
    """``anthropic.Anthropic`` whose calls go through a guard.

    It takes what ``Anthropic`` takes, and:

    Args:
        guard: the `Guard` to go through; default: the one of ``quotaguard.toml`` or the
            environment.
        limits: instead of a guard: the limits of a private one, such as ``["10k tokens/day"]``.
        user, tier, org: whom calls are charged to; a string, or a callable asked at each call.
            `acting_as` goes before them.
        fallback: False: no other model may serve its calls.
        priority: how early the turn of its calls comes where they wait in line: a unit counts as
            half a minute (default: the tier's).

    Its calls raise `QuotaExceeded` (an ``anthropic.RateLimitError`` too), `RequestTooLarge`,
    `ModelNotAllowed` (an ``anthropic.PermissionDeniedError`` too) or `BackendError`, besides the
    SDK's own errors.
    """

    _quotaguard_stands_for = Anthropic
    _quotaguard_sdk = SDK


class AsyncGuardedAnthropic(AsyncSeam, TypedAsyncAnthropic):
    """``anthropic.AsyncAnthropic`` whose calls go through a guard; see `GuardedAnthropic`."""

    _quotaguard_stands_for = AsyncAnthropic
    _quotaguard_sdk = SDK
