"""One admitted call: it collects what was used and is settled exactly once.

    open ──close()──▶ closed

`Lease.close` is the only transition and lets one caller through, whichever thread, task or
finalizer comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from ..errors import ConfigurationError
from ..identity import Identity
from ..policies import Fallback
from ..usage import Usage
from .ops import Charge


class Demand(NamedTuple):
    """What a call is estimated to use of a model, in tokens."""

    input_tokens: int
    output_tokens: int
    hard: bool
    """Whether the output is an explicit maximum; a guess is soft, it alone never refuses a call."""
    counted: int = 0
    """The input before it was corrected by experience; 0 if there is nothing to learn from it."""
    features: str = ""
    """What kind of request it is, for learning."""
    answers: int = 1
    """How many answers it asks for."""
    service: str = ""
    """The provider's service tier, where that has a price of its own."""

    @property
    def high(self) -> Usage:
        """All of it."""
        return Usage(1, self.input_tokens, self.output_tokens)

    @property
    def keep(self) -> Usage:
        """What stays charged when nobody can tell what became of the call."""
        return Usage(1, self.input_tokens, 0)


Cost: TypeAlias = Callable[["Usage | None", "str | None", str], "int | None"]
"""What a usage of a model costs at a service tier, in nano-dollars; None: unknown."""


class Outcome(NamedTuple):
    """How a call ended, in terms of what is charged."""

    used: Usage | None
    """What was used; None: nobody can tell, it is charged as reserved."""
    reported: bool = False
    """Whether the provider said so: then there is something to learn from it."""


AS_RESERVED = Outcome(None)


def _with(requests: int, used: Usage) -> Usage:
    """A usage with that many requests (``_replace`` takes several times as long)."""
    return used if used.requests == requests else Usage(requests, *used[1:])


class Lease:
    """A reservation in the hands of its call.

    Attributes:
        id: names the reservation.
        identity: whose call it is.
        requested: the model that was asked for, None for calls without one.
        model: the model to use: the requested one, or the fallback that was admitted.
        because: why the requested model does not serve it, such as the limit that had no room; None
            if it does.
        via: the policy that another model serves it by.
        observed: what would have been done with it, were the guard not only observing.
        demand: what was estimated for ``model``.
        cost: what usage costs, by the guard's prices.
        in_money: whether a limit on money is charged.
        waited: seconds that the call stood in line.
        after: what each charged bucket had left when it was last seen.
        used: what the call was charged for, once settled; None: as reserved, or not settled yet.
        attempts: HTTP requests made for it (the SDK's own retries included).
        listener: who hears each HTTP response for what it says of the provider's limits, if
            anybody does.
        began: when it was admitted, in seconds since the epoch.
    """

    __slots__ = (
        "__weakref__",
        "_open",
        "_reported",
        "_spent_inside",
        "after",
        "attempts",
        "because",
        "began",
        "charges",
        "cost",
        "demand",
        "granted",
        "id",
        "identity",
        "in_money",
        "listener",
        "model",
        "observed",
        "read",
        "renew_at",
        "requested",
        "used",
        "via",
        "waited",
    )

    def __init__(
        self,
        id: str,
        identity: Identity,
        requested: str | None,
        model: str | None,
        demand: Demand,
        charges: tuple[Charge, ...],
        granted: tuple[float, ...],
        left: tuple[float, ...],
    ) -> None:
        self.id = id
        self.identity = identity
        self.requested = requested
        self.model = model
        self.demand = demand
        self.charges = charges
        self.granted = granted
        self.because: str | None = None
        self.via: Fallback | None = None
        self.observed: str | None = None
        self.waited = 0.0
        self.after = left
        self.used: Usage | None = None
        self.attempts = 0
        self.listener: Any = None
        self.began = 0.0
        self.renew_at = 0.0
        self.read: Callable[[Any], Usage | None] | None = None
        self.cost: Cost | None = None
        self.in_money = False
        self._reported: Usage | None = None
        self._spent_inside = False
        self._open = [True]

    @property
    def is_open(self) -> bool:
        """Whether it is still to be settled."""
        return bool(self._open)

    @property
    def left(self) -> dict[str, float]:
        """Text of each limit -> what its bucket had left when it was last seen, in units of its
        metric.
        """
        return {
            c.limit.text: left / c.limit.scale
            for c, left in zip(self.charges, self.after, strict=True)
            if c.owner[0] != "pause"
        }

    @property
    def shares(self) -> tuple[tuple[str, float], ...]:
        """The text of each limit, and the share of what its bucket can hold that was left then."""
        return tuple(
            [
                (charge.limit.text, left / charge.limit.ceiling if charge.limit.ceiling else 0.0)
                for charge, left in zip(self.charges, self.after, strict=True)
                if charge.owner[0] != "pause"
            ]
        )

    @property
    def reserved(self) -> Usage:
        """What was estimated for the model that serves the call."""
        return self.demand.high

    def record(
        self,
        usage: Any = None,
        *,
        input_tokens: int = 0,
        output_tokens: int = 0,
        cached_tokens: int = 0,
        reasoning_tokens: int = 0,
    ) -> None:
        """Say what the call used; what is said more than once adds up.

        Args:
            usage: a `Usage`, or a provider's response or usage object (an SDK model or its JSON).
            input_tokens, output_tokens, cached_tokens, reasoning_tokens: or the counts themselves.

        Raises:
            ConfigurationError: no usage can be read from ``usage``, or a count is negative.
        """
        if usage is None:
            said: Usage | None = Usage(
                0, input_tokens, output_tokens, cached_tokens, 0, reasoning_tokens
            )
        elif isinstance(usage, Usage):
            said = usage
        else:
            said = self.read(usage) if self.read is not None else None
        if said is None or min(said.counts) < 0:
            raise ConfigurationError(
                f"no usage can be read from {type(usage).__name__}; pass a quotaguard.Usage, a "
                "response that has a usage, or input_tokens= and output_tokens="
                if said is None
                else f"counts are >= 0, not {said!r}"
            )
        self._reported = said if self._reported is None else self._reported + said

    def spent_inside(self) -> None:
        """A guarded client charged a call made within this one: do not charge it twice."""
        self._spent_inside = True

    def outcome(self, found: Usage | None, failed: bool) -> Outcome:
        """How a call ended of which we know only what was recorded, or found in its result.

        Recorded usage counts. Else what guarded clients charged inside is all; else what was found
        in the result; else a failed call keeps its input charged (it may have been sent), and a
        successful one is charged as reserved.
        """
        if self._reported is not None:
            return Outcome(_with(max(1, self._reported.requests), self._reported))
        if self._spent_inside:
            return Outcome(Usage())
        if found is not None:
            return Outcome(_with(max(1, found.requests), found))
        return Outcome(self.demand.keep) if failed else AS_RESERVED

    def charged(self, used: Usage, *, reported: bool = False) -> Outcome:
        """An answered call's outcome: what was used, and the HTTP requests made for it."""
        return Outcome(_with(max(1, self.attempts), used), reported)

    def close(self) -> bool:
        """Take the right to settle: True for the first caller, False for all others."""
        try:
            self._open.pop()  # atomic, also where a finalizer interrupts this very call
        except IndexError:
            return False
        return True

    def amounts(self, outcome: Outcome) -> tuple[float, ...]:
        """What each bucket is to be charged."""
        used = outcome.used
        if used is not None:
            return tuple([charge.limit.measure(used, self.model) for charge in self.charges])
        if self.attempts <= 1:
            return self.granted
        return tuple(
            float(self.attempts) if charge.limit.metric == "requests" else granted
            for charge, granted in zip(self.charges, self.granted, strict=True)
        )

    def __repr__(self) -> str:
        state = "open" if self._open else "settled"
        return f"<Lease {self.id} {state} {self.model or ''} reserved={tuple(self.granted)}>"
