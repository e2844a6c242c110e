"""What HTTP says of quotas, for any framework: fields of a response, and the answer to a refusal.

``RateLimit-Policy`` and ``RateLimit`` are those of draft-ietf-httpapi-ratelimit-headers-11, written
as structured fields (RFC 9651); an answer to a refusal is a problem by RFC 9457. Both tell the
caller of its own buckets and its organisation's, never of those of somebody else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import ExitStack
from http import HTTPStatus
from typing import Any, NamedTuple, TypeAlias

from ..core.lease import Lease
from ..core.ops import Owner
from ..core.plan import whose
from ..errors import (
    BackendError,
    ConfigurationError,
    ModelNotAllowed,
    QuotaExceeded,
    RequestTooLarge,
)
from ..guard import Guard
from ..identity import Identity, acting_as, current, enclosed
from ..limits import Limit
from ..receipts import collecting
from ..windows import window

Field: TypeAlias = tuple[str, str]
"""Name (lower case) and value of a header field."""

REFUSALS = (QuotaExceeded, ModelNotAllowed, BackendError)
"""What a response tells the caller. Other errors are the app's own, and stay 500s."""

EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
"""The problem type that the draft on RateLimit fields registers."""

BACKEND_AWAY = 2
"""Seconds until it is worth coming back when the ledger is away: by then it is probed again."""

_UNITS = {"usd": "nano-usd"}
"""Units of quotas in the ledger, where they are not the metric's."""
_MOST = 10**15 - 1  # the largest integer of a structured field


class Problem(NamedTuple):
    """The answer to a refusal."""

    status: int
    fields: list[Field]
    body: dict[str, Any]
    """JSON; its content type is ``application/problem+json``."""


class Exchange(ExitStack):
    """One HTTP request and its response: a context manager around what serves it.

    Within the block calls act for the caller, and are noted.

    Args:
        guard: whose ledger it is.
        caller: who calls: a user's name or an `Identity`; None: `act` says so later, or nobody.
    """

    def __init__(self, guard: Guard, caller: Identity | str | None = None) -> None:
        super().__init__()
        self.guard = guard
        self.caller: Identity | None = None
        self.leases: list[Lease] = []
        self._told = caller
        self._refused: dict[str, tuple[Limit, float]] = {}

    def __enter__(self) -> Exchange:
        super().__enter__()
        self.enter_context(enclosed())
        self.leases = self.enter_context(collecting())
        if self._told is not None:
            self.act(self._told)
        return self

    def act(self, caller: Identity | str) -> None:
        """Let the rest of the exchange act for this caller.

        Raises:
            ConfigurationError: it is neither a name nor an `Identity`.
        """
        who = Identity(caller) if isinstance(caller, str) else caller
        if not isinstance(who, Identity):
            raise ConfigurationError(f"a caller is a user's name or an Identity, not {caller!r}")
        # Never left: it ends with the exchange.
        acting_as(who.user, org=who.org, tier=who.tier).__enter__()
        said = current()
        self.caller = said._replace(user=self.guard.known_as(said.user))

    def fields(self) -> list[Field]:
        """What the response's head tells of the calls that were made or refused so far: the limits
        that they came under, what these have left and, where another model served, which.
        """
        levels: dict[str, tuple[Limit, float]] = {}
        downgrades: dict[Field, None] = {}
        for lease in self.leases:
            for charge, left in zip(lease.charges, lease.after, strict=True):
                if charge.owner in self._owners():
                    levels[charge.limit.text] = charge.limit, left
            if lease.model != lease.requested and lease.identity[:2] == (self.caller or ())[:2]:
                downgrades[lease.requested or "", lease.model or ""] = None
        found = self._rate_limit((levels | self._refused).values())
        if downgrades:
            requested, served = zip(*downgrades, strict=True)
            found.append(("quota-requested-model", ", ".join(map(_quoted, requested))))
            found.append(("quota-served-model", ", ".join(map(_quoted, served))))
        return found

    def problem(self, error: QuotaExceeded | ModelNotAllowed | BackendError) -> Problem:
        """The answer to a refusal.

        ========================  ======  =================================================
        `QuotaExceeded`           429     ``Retry-After`` in whole seconds, rounded up
        `RequestTooLarge`         413     none: 429 would have clients try again in vain
        `ModelNotAllowed`         403
        `BackendError`            503     ``Retry-After``
        ========================  ======  =================================================
        """
        if isinstance(error, QuotaExceeded):
            return self._exceeded(error)
        if isinstance(error, ModelNotAllowed):
            return _problem(HTTPStatus.FORBIDDEN, str(error), error.as_dict())
        detail = "Quotas cannot be checked at the moment."  # the error may name hosts
        away = {"retry_after": BACKEND_AWAY}
        return _problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, away)

    def _exceeded(self, error: QuotaExceeded) -> Problem:
        facts: dict[str, Any] = {"type": EXCEEDED, "title": "A quota is exceeded"}
        detail, status = "A quota has no room for this request.", HTTPStatus.TOO_MANY_REQUESTS
        own = error.who in map(whose, self._owners())
        if own or error.who == whose(("global",)):
            facts |= {"limit": error.limit, "metric": error.metric, "asked": error.asked}
            facts["violated-policies"] = [error.limit]
        if own:
            detail = str(error)
            limit = Limit.parse(error.limit)
            level = error.left * limit.scale
            self._refused[error.limit] = limit, level
            facts |= {"left": error.left, "capacity": error.capacity}
            facts["resets_in"] = _reset(limit, level, self.guard.clock.now())
        if isinstance(error, RequestTooLarge) or math.isinf(error.retry_after):
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        else:
            facts["retry_after"] = max(1, math.ceil(error.retry_after))
        return _problem(status, detail, facts)

    def _owners(self) -> list[Owner]:
        """The buckets of which the caller may hear."""
        user, org = (self.caller or Identity())[:2]
        owners: list[Owner] = [("user", org or "", user)] if user is not None else []
        return [*owners, ("org", org)] if org is not None else owners

    def _rate_limit(self, levels: Iterable[tuple[Limit, float]]) -> list[Field]:
        now = self.guard.clock.now()
        policies, rests = [], []
        for limit, left in levels:
            name, length = _quoted(limit.text), _length(limit, now)
            unit = _UNITS.get(limit.metric, limit.metric.replace("_", "-"))
            span = f";w={length}" if length is not None else ""
            policies.append(f'{name};q={_whole(limit.ceiling)};qu="{unit}"{span}')
            reset = _reset(limit, left, now)
            rests.append(f"{name};r={_whole(left)}" + (f";t={reset}" if reset is not None else ""))
        if not policies:
            return []
        return [("ratelimit-policy", ", ".join(policies)), ("ratelimit", ", ".join(rests))]


def _problem(status: HTTPStatus, detail: str, facts: dict[str, Any]) -> Problem:
    body = {"type": "about:blank", "title": status.phrase, "status": int(status)}
    fields = [("retry-after", str(facts["retry_after"]))] if "retry_after" in facts else []
    return Problem(int(status), fields, body | {"detail": detail} | facts)


def _length(limit: Limit, now: float) -> int | None:
    """Seconds in which the limit's whole quota comes back; None: it never does."""
    if isinstance(limit.period, str):
        start, end = window(limit.period, limit.tz, now)
        return round(end - start)
    return math.ceil(limit.ceiling / limit.rate) if limit.rate else None


def _reset(limit: Limit, left: float, now: float) -> int | None:
    """Seconds until the limit is full again, if nothing else is drawn; None: it never is."""
    if isinstance(limit.period, str):
        return math.ceil(window(limit.period, limit.tz, now)[1] - now)
    return math.ceil(max(0.0, limit.ceiling - left) / limit.rate) if limit.rate else None


def _whole(amount: float) -> int:
    """An amount as a structured field says it: whole, and not below nothing."""
    return min(max(0, math.floor(amount)), _MOST)


def _quoted(text: str) -> str:
    """A string as a structured field says it; what that cannot say becomes a question mark."""
    plain = "".join(c if " " <= c <= "~" else "?" for c in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
