"""Guarded clients of the openai SDK: subclasses of its own, in their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import openai
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI, _base_client

from ..errors import ModelNotAllowed, QuotaExceeded, RequestTooLarge
from ..providers.openai import OpenAIProvider
from .sdk import Sdk
from .seam import AsyncSeam, SyncSeam

if TYPE_CHECKING:  # the SDK's classes, with our arguments in the constructors' types
    from ._typed_openai import (
        TypedAsyncAzureOpenAI,
        TypedAsyncOpenAI,
        TypedAzureOpenAI,
        TypedOpenAI,
    )
else:
    TypedOpenAI = OpenAI
    TypedAsyncOpenAI = AsyncOpenAI
    TypedAzureOpenAI = AzureOpenAI
    TypedAsyncAzureOpenAI = AsyncAzureOpenAI


class OpenAIQuotaExceeded(QuotaExceeded, openai.RateLimitError):  # type: ignore[misc]  # status_code: int, Literal
    """`QuotaExceeded` that is an ``openai.RateLimitError`` too."""


class OpenAIRequestTooLarge(RequestTooLarge, openai.RateLimitError):  # type: ignore[misc]  # status_code: int, Literal
    """`RequestTooLarge` that is an ``openai.RateLimitError`` too."""


class OpenAIModelNotAllowed(ModelNotAllowed, openai.PermissionDeniedError):  # type: ignore[misc]  # status_code: int, Literal
    """`ModelNotAllowed` that is an ``openai.PermissionDeniedError`` too."""


def _body(error: QuotaExceeded | ModelNotAllowed) -> tuple[dict[str, Any], dict[str, Any]]:
    """https://platform.openai.com/docs/guides/error-codes; the SDK's error carries the inner."""
    inner = {
        "message": str(error),
        "type": error.code,
        "param": None,
        "code": error.code,
        "quota": error.as_dict(),
    }
    return {"error": inner}, inner


SDK = Sdk(
    openai,
    _base_client,
    OpenAIProvider(),
    {
        QuotaExceeded: OpenAIQuotaExceeded,
        RequestTooLarge: OpenAIRequestTooLarge,
        ModelNotAllowed: OpenAIModelNotAllowed,
    },
    _body,
)


class GuardedOpenAI(SyncSeam, TypedOpenAI):
    """``openai.OpenAI`` whose calls go through a guard.

    It takes what ``OpenAI`` takes, and:

    Args:
        guard: the `Guard` to go through; default: the one of ``quotaguard.toml`` or the
            environment.
        limits: instead of a guard: the limits of a private one, such as ``["10k tokens/day"]``.
        user, tier, org: whom calls are charged to; a string, or a callable asked at each call.
            `acting_as` goes before them.
        fallback: False: no other model may serve its calls.
        priority: how early the turn of its calls comes where they wait in line: a unit counts as
            half a minute (default: the tier's).

    Its calls raise `QuotaExceeded` (an ``openai.RateLimitError`` too), `RequestTooLarge`,
    `ModelNotAllowed` (an ``openai.PermissionDeniedError`` too) or `BackendError`, besides the
    SDK's own errors.
    """

    _quotaguard_stands_for = OpenAI
    _quotaguard_sdk = SDK


class AsyncGuardedOpenAI(AsyncSeam, TypedAsyncOpenAI):
    """``openai.AsyncOpenAI`` whose calls go through a guard; see `GuardedOpenAI`."""

    _quotaguard_stands_for = AsyncOpenAI
    _quotaguard_sdk = SDK


class GuardedAzureOpenAI(SyncSeam, TypedAzureOpenAI):
    """``openai.AzureOpenAI`` whose calls go through a guard; see `GuardedOpenAI`."""

    _quotaguard_stands_for = AzureOpenAI
    _quotaguard_sdk = SDK


class AsyncGuardedAzureOpenAI(AsyncSeam, TypedAsyncAzureOpenAI):
    """``openai.AsyncAzureOpenAI`` whose calls go through a guard; see `GuardedOpenAI`."""

    _quotaguard_stands_for = AsyncAzureOpenAI
    _quotaguard_sdk = SDK
