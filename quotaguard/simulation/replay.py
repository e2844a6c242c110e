"""A log of calls, put to the real rules and a ledger in memory, in simulated time.

Each call arrives when it did, takes as long as it did and uses what it did; whether it goes, waits
or is served by another model is decided by the plans that decide it for live calls. Those in line
sleep on a heap of events instead of in threads, so a month passes in seconds, the same each time.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from ..backends.bells import Bells
from ..backends.memory import MemoryBackend
from ..core.drive import consulted, drive
from ..core.lease import AS_RESERVED, Demand, Lease, Outcome
from ..core.ops import Consult, Park, Queued
from ..core.plan import SHORTEST_PARK, Plan
from ..engine import Engine
from ..entries import Entry
from ..errors import ConfigurationError, ModelNotAllowed, PriceUnknown, QuotaExceeded
from ..events import Teller
from ..identity import Identity
from ..resolver import Resolver
from ..rules import Rules
from .verdicts import priced, refused, served

if TYPE_CHECKING:
    import asyncio


class Time:
    """A clock that stands where the simulation is."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return self.at

    def wait(self, bell: threading.Event, seconds: float) -> None:
        """Nobody does: who waits lies on the heap."""
        raise NotImplementedError

    async def wait_async(self, bell: asyncio.Event, seconds: float) -> None:
        """The same for a task."""
        raise NotImplementedError


class _Alarms(Bells):
    """Bells that keep nobody: they only tell when it is time to ask again."""

    def due(self, id: str, ring: Callable[[], None], until: float) -> float:
        """When that is; ``ring`` is called if it becomes earlier."""
        return self._clock.now() + max(0.0, self._lie_down(id, ring, until))


class _Rehearsal(Engine):
    """A guard's terms over a ledger and a clock of its own. Nobody is told, nothing is learnt."""

    def __init__(self, guard: Engine, time: Time, rules: Rules, resolver: Resolver) -> None:
        vars(self).update(vars(guard))
        self.clock = time
        self.prices = guard.prices.by(time.now)
        self.rules = rules.changed(prices=self.prices)
        self.resolver = resolver.again(None, time.now)
        self.alarms = _Alarms(time)
        self.backend = MemoryBackend(time, self.alarms)
        self.tell = Teller(())
        self._observing = False
        self._identity_hash = None  # the log has the names that the ledger has
        self._errands = SimpleQueue()

    def _warn(self, lease: Lease, shares: tuple[float, ...]) -> None:
        """Nobody is to be warned of what did not happen."""


@dataclass(slots=True)
class _Call:
    """A call of the log on its way through the simulation."""

    did: Entry
    arrived: float
    seconds: float
    """How long it takes once it is admitted."""
    plan: Plan[Lease] | None = None
    wait: float = 0.0
    """The wait that was computed for it."""
    asleep: bool = False
    naps: int = 0
    would: Entry | None = None


@dataclass(slots=True)
class _Replay:
    engine: _Rehearsal
    time: Time
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: Any = field(default_factory=count)

    def run(self, calls: Sequence[_Call]) -> None:
        for call in sorted(calls, key=lambda call: call.arrived):
            self._until(call.arrived)
            self.time.at = max(self.time.at, call.arrived)
            self._arrive(call)
        self._until(float("inf"))

    def _until(self, end: float) -> None:
        """Let everything happen that happens by then, in order."""
        events = self._events
        while events and events[0][0] <= end:
            at, _, happen = heapq.heappop(events)
            self.time.at = max(self.time.at, at)
            happen()

    def _at(self, moment: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._numbers), happen))

    def _arrive(self, call: _Call) -> None:
        did, engine = call.did, self.engine
        known = did.tier in engine.rules.tiers and not engine.resolver.asks
        who = Identity(did.user, did.org, did.tier if known else None)
        reserved = did.reserved if any(did.reserved.counts) else did.charged
        demand = Demand(reserved.input_tokens, reserved.output_tokens, bool(did.stated))
        call.plan = engine.admission(who, did.requested, lambda *_: demand)
        self._go_on(call)

    def _go_on(self, call: _Call) -> None:
        """Carry a call's plan out until it waits, is admitted or is refused."""
        plan, backend = call.plan, self.engine.backend
        assert plan is not None
        try:
            op = next(plan)
            while not isinstance(op, Park):
                answer: Any
                try:
                    answer = consulted(op) if isinstance(op, Consult) else backend.execute(op)
                except Exception as error:  # noqa: BLE001  # the plan decides about it
                    op = plan.throw(error)
                    continue
                if isinstance(answer, Queued):
                    call.wait = answer.wait
                op = plan.send(answer)
        except StopIteration as stop:
            self._admitted(call, stop.value)
        except (QuotaExceeded, ModelNotAllowed, PriceUnknown) as error:
            call.would = refused(call.did, error, call.arrived, self.time.at, self.engine.prices)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"{call.did.id} of the log (user {call.did.user!r}, tier {call.did.tier!r}): "
                f"{error}"
            ) from error
        else:
            call.asleep = True
            # The jitter that is for callers in many processes would only blur the result.
            pause = min(op.seconds, max(call.wait, SHORTEST_PARK))
            self._lie_down(call, op.id, self.time.at + pause)

    def _lie_down(self, call: _Call, id: str, until: float) -> None:
        if call.asleep:
            call.naps += 1
            due = self.engine.alarms.due(id, partial(self._lie_down, call, id, until), until)
            self._at(due, partial(self._wake, call, call.naps))

    def _wake(self, call: _Call, nap: int) -> None:
        if call.asleep and nap == call.naps:
            call.asleep = False
            self._go_on(call)

    def _admitted(self, call: _Call, lease: Lease) -> None:
        now, did = self.time.at, call.did
        end = now + call.seconds
        call.would = served(did, lease, now, end, self.engine.prices)
        if did.outcome == "served" and did.used is None:
            outcome = AS_RESERVED
        else:
            outcome = Outcome(did.used or did.reserved)
        self._at(end, partial(self._settle, lease, outcome))
        self._renew(lease, end)

    def _renew(self, lease: Lease, end: float) -> None:
        """Whoever is at work on a long call lets its lease go on."""
        if lease.renew_at < end:
            self._at(lease.renew_at, partial(self._renewed, lease, end))

    def _renewed(self, lease: Lease, end: float) -> None:
        drive(self.engine.renewal(lease), self.engine.backend)
        self._renew(lease, end)

    def _settle(self, lease: Lease, outcome: Outcome) -> None:
        lease.close()
        drive(self.engine.settlement(lease, outcome), self.engine.backend)


def replay(
    guard: Engine, log: Sequence[Entry], rules: Rules, resolver: Resolver
) -> tuple[list[Entry], list[Entry]]:
    """Put the calls of a log to a guard's terms under some rules.

    Args:
        guard: whose terms; nothing of it is touched.
        log: the calls.
        rules: the tiers and limits.
        resolver: who has which tier; one that asks nobody leaves it to the log.

    Returns:
        The calls as they were, with costs by the guard's prices where the log has none, and as they
        would have been, in the same order.

    Raises:
        ConfigurationError: a call has no user, or a tier that is not known and no default.
    """
    time = Time()
    engine = _Rehearsal(guard, time, rules, resolver)
    durations = [_seconds(entry) for entry in log if entry.outcome == "served"]
    usual = sum(durations) / len(durations) if durations else 0.0
    calls = [
        _Call(
            entry,
            (entry.time if entry.began is None else entry.began) - entry.waited,
            _seconds(entry) if entry.outcome == "served" else usual,
        )
        for entry in log
    ]
    # Not in the caller's context: who acts there, or what runs there, is none of these calls.
    Context().run(_Replay(engine, time).run, calls)
    for call in calls:
        time.at = call.did.time
        call.did = priced(call.did, engine.prices)
    return [call.did for call in calls], [call.would for call in calls if call.would is not None]


def _seconds(entry: Entry) -> float:
    return 0.0 if entry.began is None else max(0.0, entry.time - entry.began)
