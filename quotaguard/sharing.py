"""What guards of one ledger learn, told to one another: how long answers are, what was billed.

Each guard keeps what it learns in pools (`quotaguard.counting.pool`), and now and then adds what is
new to the summaries in the backend and takes them over, off the calls' path: in the process's
helper thread. A backend that is away is asked again later; no call waits for it or fails by it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable
from contextlib import suppress

from . import errands
from .backends import Backend
from .core.drive import drive
from .core.ops import Merge, Merged, Summary
from .core.plan import Plan
from .counting.pool import Pool
from .errors import BackendError
from .events import log

INTERVAL = 10.0
"""Seconds between two exchanges, while there is something to tell; a quarter more or less, so that
workers that were started together do not keep together."""
ENOUGH = 100
"""Things to tell after which one does not wait as long."""
KEPT = 14 * 86_400.0
"""Seconds for which a summary is kept that nobody adds to."""
AT_ONCE = 64
"""Summaries in one operation."""


class Sharing:
    """Exchanges what pools know with the summaries of a backend, if others use it too.

    Args:
        pools: what to share. They are told to note what is new.
        backend: where; if it is this process's own nothing happens.
        now: the time, in seconds.
        chance: numbers from 0 to 1, for spreading exchanges.
    """

    def __init__(
        self,
        pools: Iterable[Pool],
        backend: Backend,
        now: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._backend = backend
        self._now = now
        self._chance = chance
        self._pools = tuple(pools) if getattr(backend, "shared", False) else ()
        self._process = os.getpid()
        self._rung = False
        self._plan_next()
        for pool in self._pools:
            pool.noted = self._noted
        if self._pools:
            errands.at_exit(self)

    def _plan_next(self) -> None:
        early = 0.75 + self._chance() / 2
        self._count = 0
        self._enough = ENOUGH * early
        self._due = self._now() + INTERVAL * early

    def _noted(self, soon: bool) -> None:
        self._count += 1
        if not self._rung and (soon or self._count >= self._enough or self._now() >= self._due):
            self._rung = True
            errands.soon(self)

    def exchange(self) -> Plan[None]:
        """The plan that tells what is new and takes over what others know. A backend that is away
        ends it; what was not told is told next time.
        """
        self._rung = False
        self._plan_next()
        if self._process != os.getpid():
            self._process = os.getpid()
            for pool in self._pools:
                pool.forget_news()  # the parent tells what it has seen
        for pool in self._pools:
            with suppress(BackendError):
                yield from _exchange(pool)

    def run_errands(self) -> None:
        """Exchange now, blocking; for the helper thread."""
        try:
            drive(self.exchange(), self._backend)
        except Exception:  # noqa: BLE001  # the thread serves others too
            log.exception("what was learnt could not be shared")


def _exchange(pool: Pool) -> Plan[None]:
    while news := pool.take(AT_ONCE):
        summaries = [Summary((pool.kind, *key), added, pool.most) for key, added in news.items()]
        try:
            answer: Merged = yield Merge(tuple(summaries), KEPT)
        except BaseException:
            pool.give_back(news)
            raise
        for key, weights in zip(news, answer.weights, strict=True):
            pool.put(key, weights)
