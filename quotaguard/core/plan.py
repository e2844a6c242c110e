"""The decisions of a call's life, once for sync and async: generators that yield operations.

A plan yields an operation (`quotaguard.core.ops`) and is sent its answer; an error of the backend,
or a cancellation, is thrown in where the operation was yielded. `quotaguard.core.drive` carries
plans out. The clock is passed in only to know how long something took.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias, TypeVar

from ..errors import BackendError, QuotaExceeded, RequestTooLarge
from ..events import (
    Admitted,
    BackendFailed,
    FellBack,
    Refused,
    Teller,
    Waited,
    Waiting,
)
from ..events import Settled as SettledEvent
from ..identity import Identity
from ..policies import Fallback, Policy, Refuse, Wait
from .lease import Demand, Lease, Outcome
from .ops import (
    Candidate,
    Op,
    Owner,
    Park,
    Queued,
    Refusal,
    Release,
    Renew,
    Reservation,
    Reserve,
    Settle,
    Settled,
    longest,
)

T = TypeVar("T")
Plan: TypeAlias = Generator[Op, Any, T]

SHORTEST_PARK = 0.001
"""Seconds; a waiter never comes back in the same instant, whatever it was told."""


class Option(NamedTuple):
    """One way to serve the call: what it is estimated to use, and what that charges."""

    demand: Demand
    candidate: Candidate


class Ask(NamedTuple):
    """A call that wants to be admitted."""

    id: str
    identity: Identity
    model: str | None
    option: Callable[[str | None], Option]
    """How a model would serve it."""
    allows: Callable[[str | None], bool]
    """Whether the tier includes a model."""
    policies: tuple[Policy, ...]
    lease: float
    """Seconds."""
    on_backend_error: str
    """"refuse" or "allow"."""
    instead_of: str | None = None
    rough: Callable[[str | None], Option] | None = None
    """The same by an upper bound that is cheap to have: if even that fits, nothing is counted."""

    def fallbacks(self, models: Iterable[str]) -> list[str]:
        """Those of the models that may serve instead of the one asked for."""
        return [model for model in models if model != self.model and self.allows(model)]


def admit(
    ask: Ask, now: Callable[[], float], tell: Teller, later: Callable[[Op], None]
) -> Plan[Lease]:
    """Reserve for the call, trying the policies in order.

    ``later`` takes an operation that can't be carried out here and now, for somebody else to.

    Raises:
        RequestTooLarge: no limit in the way will ever have room for it.
        QuotaExceeded: there is no room, and no policy found another way.
        BackendError: the ledger could not be reached and the guard refuses then.
    """
    line = _Standing(now)
    try:
        return (yield from _tried(ask, line, tell))
    except BackendError as error:
        outcome = "allowed" if ask.on_backend_error == "allow" else "refused"
        tell(BackendFailed(ask.id, ask.identity, ask.model, outcome, str(error)))
        later(Release(ask.id))  # the reply may be what was lost
        if outcome == "refused":
            raise
        demand = ask.option(ask.model).demand
        lease = Lease(ask.id, ask.identity, ask.model, ask.model, demand, (), (), ())
        lease.waited = line.seconds()
        return lease
    except QuotaExceeded:
        raise
    except GeneratorExit:
        # The task was thrown away where it stood; it cannot carry anything out any more.
        later(Release(ask.id))
        raise
    except BaseException:
        # Cancelled between send and reply, or in line: nobody will use the answer.
        try:
            yield Release(ask.id)
        except BaseException as error:  # away, or cancelled once more
            later(Release(ask.id))
            if not isinstance(error, BackendError):
                raise
        if line.began is not None:
            tell(Waited(ask.id, ask.identity, ask.model, line.seconds(), admitted=False))
        raise


def _tried(ask: Ask, line: _Standing, tell: Teller) -> Plan[Lease]:
    """The policies, in order: fallbacks widen the choice, a wait or a refusal asks the ledger."""
    if ask.rough is not None:
        rough = ask.rough(ask.model)
        decision = yield Reserve(ask.id, (rough.candidate,), ask.lease, 0.0, ask.instead_of)
        if isinstance(decision, Reservation):
            return _admitted(ask, [rough], decision, 0.0, tell)
    options = [ask.option(ask.model)]
    refusal: Refusal | None = None
    asked_for = 0
    for policy in (*ask.policies, Refuse()):
        if isinstance(policy, Fallback):
            options += [ask.option(model) for model in ask.fallbacks(policy.models)]
            continue
        if isinstance(policy, Refuse) and asked_for == len(options):
            break  # it was asked already, in line
        asked_for = len(options)
        candidates = tuple(option.candidate for option in options)
        if isinstance(policy, Wait):
            decision = yield from _stand_in_line(ask, candidates, policy, line, tell)
        else:
            decision = yield Reserve(ask.id, candidates, ask.lease, 0.0, ask.instead_of)
        if isinstance(decision, Reservation):
            return _admitted(ask, options, decision, line.seconds(), tell)
        refusal = decision
        if isinstance(policy, Refuse):
            break
    assert refusal is not None  # the ledger was asked, at the latest by the last Refuse
    error = refused(ask, refusal)
    tell(Refused(ask.id, ask.identity, ask.model, error))
    raise error


class _Standing:
    """How long a call has stood in line."""

    __slots__ = ("_now", "before", "began")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.began: float | None = None
        self.before = 0.0

    def seconds(self) -> float:
        return self.before + (self._now() - self.began if self.began is not None else 0.0)

    def over(self) -> None:
        self.before = self.seconds()
        self.began = None


def _stand_in_line(
    ask: Ask,
    candidates: tuple[Candidate, ...],
    policy: Wait,
    line: _Standing,
    tell: Teller,
) -> Plan[Reservation | Refusal]:
    """Reserve, waiting for it as long as the policy allows."""
    patience = float(policy.max_seconds)
    attempt = 0
    while True:
        decision = yield Reserve(ask.id, candidates, ask.lease, patience, ask.instead_of)
        if not isinstance(decision, Queued):
            if line.began is not None:
                admitted = isinstance(decision, Reservation)
                line.over()
                tell(Waited(ask.id, ask.identity, ask.model, line.seconds(), admitted))
            return decision  # type: ignore[no-any-return]
        if line.began is None:
            line.began = line._now()
            binding = str(decision.refusal.binding().charge.limit)
            tell(Waiting(ask.id, ask.identity, ask.model, binding, decision.wait))
        attempt += 1
        pause = min(policy.pause(decision.wait, attempt), patience)
        yield Park(ask.id, max(pause, SHORTEST_PARK))
        patience = max(0.0, policy.max_seconds - (line.seconds() - line.before))


def _admitted(
    ask: Ask, options: list[Option], made: Reservation, waited: float, tell: Teller
) -> Lease:
    demand, candidate = options[made.choice]
    lease = Lease(
        made.id,
        ask.identity,
        ask.model,
        candidate.model,
        demand,
        candidate.charges,
        made.granted,
        made.left,
    )
    lease.waited = waited
    if made.choice > 0:
        lease.because = str(longest(made.passed_over[0]).charge.limit)
        served = candidate.model or ""
        tell(FellBack(ask.id, ask.identity, ask.model, served, lease.because))
    if tell:
        tell(Admitted(ask.id, ask.identity, ask.model, candidate.model, demand.high))
    return lease


def refused(ask: Ask, refusal: Refusal) -> QuotaExceeded:
    """The error that tells of a refusal, by the limit that binds."""
    short = refusal.binding()
    limit = short.charge.limit
    kind = QuotaExceeded if math.isfinite(short.wait) else RequestTooLarge
    return kind(
        who=whose(short.charge.owner),
        limit=str(limit),
        metric=limit.metric.replace("_", " "),
        asked=short.charge.least,
        left=short.left,
        capacity=limit.ceiling,
        retry_after=short.wait,
        model=ask.model,
    )


def whose(owner: Owner) -> str:
    """A bucket's owner for people."""
    if owner[0] == "user":
        return f"user {owner[2]}" + (f" of org {owner[1]}" if owner[1] else "")
    return f"org {owner[1]}" if owner[0] == "org" else "everyone together"


def settle(lease: Lease, outcome: Outcome, tell: Teller, later: Callable[[Op], None]) -> Plan[None]:
    """Charge what was used. The caller holds the right to (`Lease.close`).

    What the backend could not be told goes to ``later``, to be sent again.
    """
    op = Settle(lease.id, lease.amounts(outcome))
    late = False
    try:
        if lease.charges:
            answer: Settled = yield op
            late = answer.late
            if answer.left:
                lease.after = answer.left
    except BackendError as error:
        later(op)
        tell(BackendFailed(lease.id, lease.identity, lease.requested, "queued", str(error)))
    except BaseException:
        later(op)  # cancelled on the way: whether it arrived or not, saying it again is harmless
        raise
    lease.used = outcome.used
    if tell:
        tell(
            SettledEvent(
                lease.id,
                lease.identity,
                lease.requested,
                lease.model,
                lease.reserved,
                outcome.used,
                late,
            )
        )


def renew(lease: Lease, seconds: float) -> Plan[None]:
    """Let a lease go on; if the backend is away it goes on without, and may expire."""
    with suppress(BackendError):
        yield Renew(lease.id, seconds)
