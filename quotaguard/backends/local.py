"""Going on alone while the shared ledger is away: each worker admits its fair share.

While the ledger can be reached, workers announce themselves in it: each holds one unit of a bucket
under a lease that it renews, so what is held of that bucket is how many are alive, in any backend.
While it is away, calls are admitted by a ledger in this process, with every limit divided by that
number. What they used is charged to the shared one when it is back.
"""

from __future__ import annotations

import itertools
import math
import os
import secrets
import threading
import time
import weakref
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ..clock import Clock
from ..core.drive import adrive, drive
from ..core.ops import (
    Alone,
    Answer,
    BucketState,
    Candidate,
    Charge,
    Decision,
    Op,
    Owner,
    Park,
    Peek,
    Queued,
    Refusal,
    Release,
    Renew,
    Reserve,
    Settle,
    Settled,
    Shortfall,
)
from ..core.plan import Plan
from ..errors import BackendError
from ..limits import Limit
from .bells import Bells
from .memory import MemoryBackend
from .pulse import Pulse

if TYPE_CHECKING:
    from . import Backend

BEAT, ALIVE = 5.0, 16.0
"""Seconds between two announcements, and how long one lasts."""
PROBE = 2.0
"""Seconds after which to come back for what no share will ever have room for: by then the ledger
has been tried again."""
STRAY = 30.0
"""Seconds after which nobody repeats a Reserve whose answer was lost."""
MOST_REMEMBERED = 65_536

_Call: TypeAlias = tuple[tuple[Charge, ...], tuple[float, ...]]
"""What a call charges, and what of it it was granted."""
_WAITING: _Call = ((), ())
_WORKERS: Owner = ("workers",)
_ALIVE = Limit(1e9, "requests", 1.0, scope="global", on_expire="return_all")


class Local:
    """A `Backend` over another one, that answers for it while it is away."""

    def __init__(self, backend: Backend, clock: Clock) -> None:
        self._backend = backend
        self._clock = clock
        self.workers = 1
        """How many were alive when the ledger was last heard of, this one included."""
        self._begin()
        self._pulse = Pulse(self._beat, BEAT)
        _locals.add(self)

    def _begin(self) -> None:
        """What a forked child must not share with its parent."""
        self._bells = Bells(self._clock)
        self._alone = MemoryBackend(self._clock, self._bells)
        self._lock = threading.Lock()
        self._name = f"worker-{secrets.token_hex(8)}"
        self._numbers = itertools.count()
        self._announced: str | None = None
        self._away = False
        self._mine: OrderedDict[str, _Call] = OrderedDict()
        """Calls that were admitted here, or wait here."""
        self._owed: dict[tuple[Owner, Limit], float] = {}
        self._replays: deque[tuple[Reserve, Settle]] = deque()
        self._strays: OrderedDict[str, float] = OrderedDict()
        """Reservations that the ledger may have made though its answer was lost, since when."""

    @property
    def shared(self) -> bool:
        """Whether other processes use it too."""
        return getattr(self._backend, "shared", False)

    def execute(self, op: Op) -> Answer:
        """Carry out one operation there or, if that fails, here."""
        self._pulse.start()
        if self._is_mine(op):
            return self._noted(op, self._alone.execute(op))
        return drive(self._shared(op), self._backend)

    async def aexecute(self, op: Op) -> Answer:
        """The same, awaiting."""
        self._pulse.start()
        if self._is_mine(op):
            return self._noted(op, await self._alone.aexecute(op))
        return await adrive(self._shared(op), self._backend)

    def close(self) -> None:
        """Charge what is owed if that is possible now, and close the backend."""
        self._leave()
        self._backend.close()

    async def aclose(self) -> None:
        """`close`, from a task."""
        import asyncio  # whoever awaits has loaded it

        await asyncio.to_thread(self._leave)
        closing = getattr(self._backend, "aclose", None)
        if closing is None:
            self._backend.close()
        else:
            await closing()

    def _leave(self) -> None:
        self._pulse.stop()
        with suppress(BackendError):
            self._replay(stray=0.0)
            if self._announced is not None:
                self._backend.execute(Release(self._announced))

    # -- one operation ---------------------------------------------------------------------------

    def _is_mine(self, op: Any) -> bool:
        """Whether it is about a call that was admitted, or waits, here."""
        return bool(self._mine) and type(op) in _CONCLUDING and op.id in self._mine

    def _shared(self, op: Op) -> Plan[Answer]:
        try:
            answer: Answer = yield op
        except BackendError as error:
            self._away = True
            if isinstance(op, Reserve):
                return Alone(self._reserve(op, error.sent), str(error))
            if isinstance(op, Peek):
                return self._peek(op)
            raise
        if self._away:
            self._back()
            self._pulse.ring()
        if isinstance(op, Reserve):
            self._strays.pop(op.id, None)
            if self._mine.pop(op.id, None) is not None:  # it waited here before
                self._alone.execute(Release(op.id))
        return answer

    def _noted(self, op: Op, answer: Answer) -> Answer:
        """What became of a call of ours."""
        if isinstance(op, Settle):
            charges, granted = self._mine.pop(op.id, _WAITING)
            if cast("Settled", answer).first:
                self._owe(charges, op.amounts or granted)
        elif isinstance(op, Release):
            self._mine.pop(op.id, None)
            self._stray(op.id)
        return answer

    def _reserve(self, op: Reserve, sent: bool) -> Decision:
        candidates = tuple(
            Candidate(
                each.model,
                tuple(c._replace(limit=_share(c.limit, self.workers)) for c in each.charges),
            )
            for each in op.candidates
        )
        answer = cast("Decision", self._alone.execute(op._replace(candidates=candidates)))
        if isinstance(answer, Queued):
            self._remember(op.id, _WAITING)
            return Queued(Refusal(_whole(op, answer.refusal.shortfalls)), answer.wait)
        if isinstance(answer, Refusal):
            refusal = Refusal(_whole(op, answer.shortfalls))
            if 0.0 < op.patience >= refusal.at_least():  # in vain here, but perhaps not there
                self._remember(op.id, _WAITING)
                self._bells.expect(op.id)
                return Queued(refusal, refusal.wait())
            self._mine.pop(op.id, None)
            if sent:
                self._stray(op.id)
            return refusal
        if sent:
            self._stray(op.id)
        self._remember(op.id, (op.candidates[answer.choice].charges, answer.granted))
        return answer._replace(passed_over=_whole(op, answer.passed_over))

    def _peek(self, op: Peek) -> tuple[BucketState, ...]:
        shares = Peek(tuple((owner, _share(limit, self.workers)) for owner, limit in op.buckets))
        states = cast("tuple[BucketState, ...]", self._alone.execute(shares))
        return tuple(
            state._replace(limit=limit)
            for state, (_, limit) in zip(states, op.buckets, strict=True)
        )

    def _remember(self, id: str, call: _Call) -> None:
        self._mine[id] = call
        if len(self._mine) > MOST_REMEMBERED:  # those that nobody ever settled
            self._mine.popitem(last=False)

    def _stray(self, id: str) -> None:
        self._strays[id] = time.monotonic()
        if len(self._strays) > MOST_REMEMBERED:  # they expire there
            self._strays.popitem(last=False)

    # -- what the shared ledger is told later ----------------------------------------------------

    def _owe(self, charges: tuple[Charge, ...], amounts: tuple[float, ...]) -> None:
        with self._lock:
            for charge, amount in zip(charges, amounts, strict=True):
                bucket = charge.owner, charge.limit
                self._owed[bucket] = self._owed.get(bucket, 0.0) + amount
        if not self._away:
            self._pulse.ring()

    def _beat(self) -> None:
        try:
            self._announce()
            if self._away:
                self._back()
            self._replay()
        except BackendError:
            self._away = True

    def _back(self) -> None:
        """The ledger answers again: let those ask it who wait here."""
        self._away = False
        self._bells.ring_all()

    def _announce(self) -> None:
        """Say that this worker is alive, and see how many are."""
        ask = self._backend.execute
        if self._announced is None or not ask(Renew(self._announced, ALIVE)):
            self._announced = self._new_id()
            one = Charge(_WORKERS, _ALIVE, 1.0, 1.0, 0.0)
            ask(Reserve(self._announced, (Candidate(None, (one,)),), ALIVE))
        (state,) = cast("tuple[BucketState, ...]", ask(Peek(((_WORKERS, _ALIVE),))))
        self.workers = max(1, round(state.held))

    def _replay(self, stray: float | None = None) -> None:
        """Charge what was used here: a reservation of nothing always fits, and may be settled with
        any amount. Ids make it count once, however often it is tried.

        Args:
            stray: seconds after which strays are given back, `STRAY` if not said.
        """
        with self._lock:
            owed, self._owed = self._owed, {}
            for owner, pairs in itertools.groupby(
                sorted(owed.items(), key=lambda pair: pair[0][0]), key=lambda pair: pair[0][0]
            ):
                these = list(pairs)
                nothing = tuple(Charge(owner, limit, 0.0, 0.0, 0.0) for (_, limit), _ in these)
                id, amounts = self._new_id(), tuple(amount for _, amount in these)
                reserve = Reserve(id, (Candidate(None, nothing),), ALIVE)
                self._replays.append((reserve, Settle(id, amounts)))
        while self._replays:
            for op in self._replays[0]:
                self._backend.execute(op)
            self._replays.popleft()
        until = time.monotonic() - (STRAY if stray is None else stray)
        while self._strays:
            id, since = next(iter(self._strays.items()))
            if since > until:
                return
            self._backend.execute(Release(id))
            self._strays.pop(id, None)

    def _new_id(self) -> str:
        return f"{self._name}-{next(self._numbers)}"

    def __repr__(self) -> str:
        return f"<Local {self._backend!r}, {self.workers} workers>"


_CONCLUDING = (Settle, Renew, Release, Park)


@lru_cache(maxsize=1024)
def _share(limit: Limit, workers: int) -> Limit:
    burst = None if limit.burst is None else limit.burst / workers
    return replace(limit, amount=limit.amount / workers, burst=burst)


def _whole(
    op: Reserve, shortfalls: tuple[tuple[Shortfall, ...], ...]
) -> tuple[tuple[Shortfall, ...], ...]:
    """Shortfalls of shares, told by the limits that they are shares of."""
    found = []
    for candidate, short in zip(op.candidates, shortfalls, strict=False):
        asked = {(charge.owner, charge.limit.id): charge for charge in candidate.charges}
        these = []
        for charge, left, wait in short:
            whole = asked[charge.owner, charge.limit.id]
            never = whole.least > whole.limit.ceiling + whole.limit.slack
            these.append(Shortfall(whole, left, PROBE if wait == math.inf and not never else wait))
        found.append(tuple(these))
    return tuple(found)


_locals: weakref.WeakSet[Local] = weakref.WeakSet()


def _after_fork() -> None:
    for local in list(_locals):
        local._begin()


os.register_at_fork(after_in_child=_after_fork)
