"""The decisions of a call's life, once for sync and async: generators that yield operations.

A plan yields an operation (`quotaguard.core.ops`) and is sent its answer; an error of the backend,
or a cancellation, is thrown in where the operation was yielded. `quotaguard.core.drive` carries
plans out. The clock is passed in only to know how long something took.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

from ..errors import BackendError, ModelNotAllowed, QuotaExceeded, RequestTooLarge
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
from ..policies import Fallback, Refuse, Wait
from .ask import Ask, Option
from .lease import Cost, Lease, Outcome
from .ops import (
    Alone,
    Candidate,
    Decision,
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
    Step,
    longest,
)

T = TypeVar("T")
Plan: TypeAlias = Generator[Step, Any, T]

SHORTEST_PARK = 0.001
"""Seconds; a waiter never comes back in the same instant, whatever it was told."""


_REFUSE = Refuse()
BEHIND_ALL = -1e9
"""The priority of who lets everybody pass."""
LATE = 0.1
"""Seconds that a policy may add to a computed wait: a place in line is kept for those who come on
time, give or take what waking up costs (`quotaguard.backends.places.GRACE`)."""


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
        if error.sent or line.began is not None:
            later(Release(ask.id))  # the reply may be what was lost; or it stands in line there
        if outcome == "refused":
            raise
        return _unlimited(ask, line)
    except (QuotaExceeded, ModelNotAllowed) as error:
        tell_refused(ask, error, tell, line.seconds())
        if not ask.observing:
            raise
        lease = _unlimited(ask, line)
        lease.observed = "refused"
        return lease
    except GeneratorExit:
        # The task was thrown away where it stood; it cannot carry anything out any more.
        later(Release(ask.id))
        raise
    except BaseException as cause:
        # Cancelled between send and reply, or in line: nobody will use the answer.
        if line.told and sys.version_info >= (3, 11):
            cause.add_note(line.told)  # asyncio.timeout() chains it
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
        fair = all(each.fair for each in ask.policies if isinstance(each, Wait))
        decision = yield from _ask(ask, (rough.candidate,), 0.0, tell, fair)
        if isinstance(decision, Reservation):
            return _admitted(ask, [rough], decision, 0.0, tell)
    if ask.denied is None:
        options = [ask.first()]
    else:
        options = ask.fallbacks(ask.instead) if ask.instead is not None else []
        if not options:
            raise ask.denied
    refusal: Refusal | None = None
    asked_for = 0
    for policy in (*ask.policies, _REFUSE):
        if isinstance(policy, Fallback):
            options = ask.options(policy, options)
            continue
        if isinstance(policy, Refuse) and asked_for == len(options):
            break  # it was asked already, in line
        asked_for = len(options)
        candidates = tuple([option.candidate for option in options])
        if isinstance(policy, Wait) and not ask.observing:
            decision = yield from _stand_in_line(ask, candidates, policy, line, tell)
        else:
            decision = yield from _ask(ask, candidates, 0.0, tell)
        if isinstance(decision, Reservation):
            return _admitted(ask, options, decision, line.seconds(), tell)
        assert isinstance(decision, Refusal)  # who won't wait is not queued
        refusal = decision
        if isinstance(policy, Wait) and ask.observing and refusal.at_least() <= policy.max_seconds:
            return _delayed(ask, refusal, line, tell)
        if isinstance(policy, Refuse):
            break
    assert refusal is not None  # the ledger was asked, at the latest by the last Refuse
    raise refused(ask, refusal)


def _unlimited(ask: Ask, line: _Standing) -> Lease:
    """The lease of a call that goes without a reservation."""
    served = ask.fallbacks(ask.instead) if ask.instead and not ask.observing else []
    demand, candidate, via = served[0] if served else ask.first()
    lease = Lease(ask.id, ask.identity, ask.model, candidate.model, demand, (), (), ())
    lease.via = via
    lease.because = str(ask.denied) if via is not None else None
    lease.waited = line.seconds()
    return lease


def _delayed(ask: Ask, refusal: Refusal, line: _Standing, tell: Teller) -> Lease:
    """The lease of a call that would have waited."""
    binding = refusal.binding().charge.limit.text
    tell(Waiting(ask.id, ask.identity, ask.model, binding, refusal.wait()))
    lease = _unlimited(ask, line)
    lease.observed = "delayed"
    return lease


def tell_refused(
    ask: Ask, error: QuotaExceeded | ModelNotAllowed, tell: Teller, waited: float
) -> None:
    """Tell of a refusal, with what the call was estimated to use and to cost."""
    if tell:
        demand = ask.first().demand
        cost = ask.cost(demand.high, ask.model, demand.service)
        estimated = demand.high._replace(nano_usd=cost)
        enforced = not ask.observing
        who = ask.id, ask.identity, ask.model
        tell(Refused(*who, error, estimated, enforced, waited, demand.hard))


def _ask(
    ask: Ask, candidates: tuple[Candidate, ...], patience: float, tell: Teller, fair: bool = True
) -> Plan[Decision]:
    """Ask the ledger, or whoever stands in for it while it is away."""
    priority = ask.priority if fair else BEHIND_ALL
    who = priority, ask.flow, ask.weight
    answer = yield Reserve(ask.id, candidates, ask.lease, patience, ask.instead_of, *who)
    if isinstance(answer, Alone):
        tell(BackendFailed(ask.id, ask.identity, ask.model, "local", answer.why))
        return answer.decision
    return answer  # type: ignore[no-any-return]


class _Standing:
    """How long a call has stood in line."""

    __slots__ = ("_now", "before", "began", "told")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.began: float | None = None
        self.before = 0.0
        self.told = ""
        """What it waits for, and how long that takes."""

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
        decision = yield from _ask(ask, candidates, patience, tell, policy.fair)
        if not isinstance(decision, Queued):
            if line.began is not None:
                admitted = isinstance(decision, Reservation)
                line.over()
                tell(Waited(ask.id, ask.identity, ask.model, line.seconds(), admitted))
            return decision
        if line.began is None:
            line.began = line._now()
            binding = decision.refusal.binding().charge.limit.text
            tell(Waiting(ask.id, ask.identity, ask.model, binding, decision.wait))
            line.told = f"quotaguard: it waited for {binding}, about {decision.wait:.1f} s"
        attempt += 1
        pause = min(policy.pause(decision.wait, attempt), decision.wait + LATE, patience)
        yield Park(ask.id, max(pause, SHORTEST_PARK))
        patience = max(0.0, policy.max_seconds - (line.seconds() - line.before))


def _admitted(
    ask: Ask, options: list[Option], made: Reservation, waited: float, tell: Teller
) -> Lease:
    demand, candidate, via = options[made.choice]
    model = ask.model if ask.observing else candidate.model
    lease = Lease(
        made.id,
        ask.identity,
        ask.model,
        model,
        demand,
        candidate.charges,
        made.granted,
        made.left,
    )
    lease.waited = waited
    if candidate.model != ask.model:
        short = longest(made.passed_over[0]).charge.limit.text if ask.denied is None else None
        if ask.observing:
            lease.observed = "downgraded"
        else:
            lease.via = via
            lease.because = short or str(ask.denied)
        tell(FellBack(ask.id, ask.identity, ask.model, candidate.model or "", short))
    if tell:
        tell(Admitted(ask.id, ask.identity, ask.model, model, demand.high))
    return lease


def refused(ask: Ask, refusal: Refusal) -> QuotaExceeded:
    """The error that tells of a refusal, by the limit that binds."""
    short = refusal.binding()
    limit = short.charge.limit
    kind = QuotaExceeded if math.isfinite(short.wait) else RequestTooLarge
    return kind(
        who=whose(short.charge.owner),
        limit=limit.text,
        metric=_UNITS.get(short.charge.owner[0])
        or _UNITS.get(limit.metric)
        or limit.metric.replace("_", " "),
        asked=min(short.charge.least, short.charge.amount) / limit.scale,
        left=short.left / limit.scale,
        capacity=limit.ceiling / limit.scale,
        retry_after=short.wait,
        model=ask.model,
    )


_UNITS = {"usd": "US dollars", "concurrent": "slots", "pause": "pause"}


def whose(owner: Owner) -> str:
    """A bucket's owner for people."""
    if owner[0] == "user":
        return f"user {owner[2]}" + (f" of org {owner[1]}" if owner[1] else "")
    if owner[0] in ("provider", "pause"):
        return f"the account at the provider ({owner[2]})"
    return f"org {owner[1]}" if owner[0] == "org" else "everyone together"


def settle(
    lease: Lease,
    outcome: Outcome,
    tell: Teller,
    later: Callable[[Op], None],
    cost: Cost = lambda *_: None,
) -> Plan[None]:
    """Charge what was used. The caller holds the right to (`Lease.close`).

    What the backend could not be told goes to ``later``, to be sent again. ``cost`` says what a
    usage of a model costs, for those who are told.
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
    except GeneratorExit:  # perhaps in a finalizer, where hooks may not take their locks
        later(op)
        raise
    except BaseException:
        later(op)  # cancelled on the way: whether it arrived or not, saying it again is harmless
        _tell_settled(lease, outcome, late, tell, cost)
        raise
    _tell_settled(lease, outcome, late, tell, cost)


def _tell_settled(
    lease: Lease,
    outcome: Outcome,
    late: bool,
    tell: Teller,
    cost: Cost,
) -> None:
    lease.used = outcome.used
    if not tell:
        return
    service = lease.demand.service
    reserved = lease.reserved
    tell(
        SettledEvent(
            lease.id,
            lease.identity,
            lease.requested,
            lease.model,
            reserved._replace(nano_usd=cost(reserved, lease.model, service)),
            outcome.used,
            late,
            lease.because,
            lease.waited,
            cost(outcome.used or reserved, lease.requested, service),
            lease.observed,
            lease.shares,
            lease.began,
            lease.demand.hard,
        )
    )


def renew(lease: Lease, seconds: float) -> Plan[None]:
    """Let a lease go on; if the backend is away it goes on without, and may expire."""
    with suppress(BackendError):
        yield Renew(lease.id, seconds)
