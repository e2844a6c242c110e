"""Everything this library raises.

QuotaguardError
├── ConfigurationError (ValueError)   a wrong argument, limit, tier or file
├── QuotaExceeded                     429: a limit has no room now
│   └── RequestTooLarge               429: a limit can never have room for this request
├── ModelNotAllowed                   403: the tier does not include this model
├── UnmeteredEndpoint                 strict mode: this endpoint spends without telling how much
├── PriceUnknown (LookupError)        a limit in dollars applies, and nobody knows the model's price
└── BackendError                      503: the ledger could not be reached

On a guarded client the refusals are the SDK's errors as well (``openai.RateLimitError``,
``anthropic.RateLimitError``, ``PermissionDeniedError``), so code written for the SDK catches them.
"""

from __future__ import annotations

import math
from typing import Any

from .wording import amount as _amount
from .wording import seconds as _seconds


class QuotaguardError(Exception):
    """Base of every error of this library."""


class ConfigurationError(QuotaguardError, ValueError):
    """A wrong argument, limit, tier or file; the message says which, and what would be right."""


class QuotaWarning(UserWarning):
    """A limit is nearly used up (see ``warn_at``)."""


class BackendError(QuotaguardError):
    """The ledger's backend could not be reached, or answered with an error (503-shaped)."""

    status_code = 503
    sent = True
    """Whether the operation may have been carried out all the same: False if nobody was asked."""


class UnmeteredEndpoint(QuotaguardError):
    """``Guard(strict=True)`` refuses an endpoint whose spending cannot be metered."""

    status_code = 403


class PriceUnknown(QuotaguardError, LookupError):
    """A price is needed, and there is none for the model: unknown is never free."""


class ModelNotAllowed(QuotaguardError):
    """The caller's tier does not include the model (403-shaped).

    Attributes:
        model: the model that was asked for.
        tier: the name of the caller's tier.
        allowed: the patterns of the models that the tier includes.
    """

    status_code: int = 403
    code: str | None = "model_not_allowed"

    def __init__(self, *, model: str, tier: str, allowed: tuple[str, ...], **sdk: Any) -> None:
        self.model = model
        self.tier = tier
        self.allowed = allowed
        super().__init__(
            f"model {model!r} is not part of tier {tier!r}; allowed: {', '.join(allowed)}", **sdk
        )

    def as_dict(self) -> dict[str, Any]:
        """The facts of the refusal as JSON values."""
        return {"model": self.model, "tier": self.tier, "allowed": list(self.allowed)}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (ModelNotAllowed, self.as_dict() | {"allowed": self.allowed})


class QuotaExceeded(QuotaguardError):
    """A limit has no room for the request now (429-shaped).

    Attributes:
        who: whose bucket it is, for example ``"user alice"`` or ``"org acme"``; ``"the account at
            the provider (gpt-4o)"`` if it is the provider's own limit (see
            ``learn_provider_limits``).
        limit: the limit that binds: the one that takes longest to have room, as text.
        metric: what the limit counts (``"tokens"``, ``"requests"``, ...); ``"pause"`` if the
            provider refused a call and said when to come back.
        asked: the least amount of the metric that the request needs.
        left: what the bucket held when it was asked (negative: it is in debt).
        capacity: the most that the bucket can hold.
        retry_after: seconds until the request would fit; ``math.inf`` if it never will. Of calls in
            flight: until the last lease that holds a slot ends; a call may end long before.
        model: the model that was asked for, or None.
    """

    status_code: int = 429
    code: str | None = "quota_exceeded"

    def __init__(
        self,
        *,
        who: str,
        limit: str,
        metric: str,
        asked: float,
        left: float,
        capacity: float,
        retry_after: float,
        model: str | None = None,
        note: str = "",
        **sdk: Any,
    ) -> None:
        self.who = who
        self.limit = limit
        self.metric = metric
        self.asked = asked
        self.left = left
        self.capacity = capacity
        self.retry_after = retry_after
        self.model = model
        self.note = note
        super().__init__(self._sentence() + note, **sdk)

    def _sentence(self) -> str:
        again = f"try again in {_seconds(self.retry_after)}"
        if self.metric == "pause":
            return f"{self.who} is to be left alone, it says: {again}"
        if self.metric == "slots":
            again = f"try again when a call ends, or in {_seconds(self.retry_after)}"
        return (
            f"{self.who} is over the limit of {self.limit}: the request needs "
            f"{_amount(self.asked)} {self.metric}, {_amount(self.left)} of "
            f"{_amount(self.capacity)} are left; {again}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The facts of the refusal as JSON values (``retry_after`` is None if it never fits)."""
        return {
            "who": self.who,
            "limit": self.limit,
            "metric": self.metric,
            "asked": self.asked,
            "left": self.left,
            "capacity": self.capacity,
            "retry_after": self.retry_after if math.isfinite(self.retry_after) else None,
            "model": self.model,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the SDK's response object, which does not travel between processes.
        plain = RequestTooLarge if isinstance(self, RequestTooLarge) else QuotaExceeded
        facts = self.as_dict() | {"retry_after": self.retry_after, "note": self.note}
        return _rebuild, (plain, facts)


class RequestTooLarge(QuotaExceeded):
    """The request is larger than the limit's bucket: waiting cannot help, so it fails at once."""

    code: str | None = "request_too_large"

    def _sentence(self) -> str:
        return (
            f"{self.who} can never make this request under the limit of {self.limit}: it needs "
            f"{_amount(self.asked)} {self.metric}, and the bucket holds at most "
            f"{_amount(self.capacity)}"
        )


def _rebuild(cls: type[QuotaguardError], facts: dict[str, Any]) -> QuotaguardError:
    return cls(**facts)
