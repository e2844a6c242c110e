"""The ledger in Redis: shared by processes and hosts, one script call for each operation."""

from __future__ import annotations

import asyncio
import os
import re
import weakref
from math import inf
from typing import Any, Literal, cast
from urllib.parse import parse_qsl, urlencode

from ...clock import Clock, SystemClock
from ...core.ops import (
    Adjust,
    Answer,
    BucketState,
    Merge,
    Op,
    Owner,
    Park,
    Peek,
    Queued,
    Release,
    Renew,
    Reserve,
    Settle,
    Settled,
)
from ...errors import ConfigurationError
from ..bells import Bells
from . import wire
from .calls import Call, Sent
from .coalesce import Combiner, Link, Turns
from .connect import place
from .listener import Listener

Scope = Literal["user", "org", "global"]
_EVERYBODY: Owner = ("global",)
_SUMMARIES: Owner = ("summaries",)
"""Not buckets, but they too are in one slot."""
SAFETY = 5.0
"""Seconds between two looks of the first in a line: a message can be lost."""
DEAF = 0.25
"""The same for everybody in line while no message can come: Redis is away, or not connected yet."""
_OPTIONS = ("backend_timeout", "prefix", "scope")


class RedisBackend:
    """A `quotaguard.backends.Backend` over Redis 6.2 or later, or Valkey.

    Args:
        target: a URL (``redis://``, ``rediss://``, ``unix://``, ``redis+cluster://``,
            ``redis+sentinel://``) or a redis-py client, blocking or asyncio, whose address,
            credentials and TLS are used; the connections are this backend's own.
        backend_timeout: seconds after which an operation is given up with `BackendError`.
        prefix: what all keys begin with; guards with the same one share their buckets.
        scope: for Redis Cluster, the broadest scope among all limits that share this ledger: the
            buckets of one call must be in one slot. ``"org"``: those of an org and its users are;
            ``"global"``: all are. A guard knows it. Without a cluster it has no meaning.
        clock: where "now" comes from if not from the server: a `quotaguard.testing.FakeClock`.

    Raises:
        ConfigurationError: an argument is wrong; the message names it and what would be right.
    """

    shared = True

    def __init__(
        self,
        target: Any,
        *,
        backend_timeout: float = 1.0,
        prefix: str = "quotaguard",
        scope: Scope = "org",
        clock: Clock | None = None,
    ) -> None:
        if not re.fullmatch(r"[\w.-]+", prefix, re.ASCII):
            raise ConfigurationError(f"a prefix is letters, digits, '_', '.', '-', not {prefix!r}")
        if scope not in ("user", "org", "global"):
            raise ConfigurationError(f"a scope is user, org or global, not {scope!r}")
        if not backend_timeout > 0:
            raise ConfigurationError(f"backend_timeout is seconds > 0, not {backend_timeout!r}")
        self._place = place(target)
        self._prefix = prefix
        self._everything = None if self._place.cluster else f"{prefix}:leases".encode()
        """The one shard that there is without a cluster."""
        self._scope = scope
        self._clock = clock or SystemClock()
        self._own_clock = not isinstance(self._clock, SystemClock)
        self._sent = Sent()
        self._timeout = float(backend_timeout)
        self._begin()
        _backends.add(self)

    @classmethod
    def from_url(cls, url: str, clock: Clock | None = None, scope: Scope = "org") -> RedisBackend:
        """The backend of a URL; ``?backend_timeout=``, ``?prefix=`` and ``?scope=`` in it are the
        arguments of that name, redis-py is given the rest. ``scope`` is used if the URL has none.

        Raises:
            ConfigurationError: the URL is not one of Redis.
        """
        address, _, query = url.partition("?")
        given = parse_qsl(query, keep_blank_values=True)
        options: dict[str, Any] = {"scope": scope}
        options |= {name: value for name, value in given if name in _OPTIONS}
        rest = urlencode([(name, value) for name, value in given if name not in _OPTIONS])
        if "backend_timeout" in options:
            try:
                options["backend_timeout"] = float(options["backend_timeout"])
            except ValueError as error:
                said = options["backend_timeout"]
                raise ConfigurationError(f"backend_timeout is seconds > 0, not {said!r}") from error
        return cls(f"{address}?{rest}" if rest else address, clock=clock, **options)

    def _begin(self) -> None:
        """What a forked child must not share with its parent."""
        self._bells = Bells(self._clock)
        self._listener = Listener(self._place, self._prefix, self._bells, self._clock)
        self._first: set[str] = set()
        """Those who are the first in a line."""
        clock = self._clock if self._own_clock else None
        self._link = Link(self._place, self._timeout, clock, self._sent, self._listener.process)
        self._combiner = Combiner(self._link)
        self._turns: dict[asyncio.AbstractEventLoop, Turns] = {}

    def execute(self, op: Op) -> Answer:
        """Carry out one operation, blocking."""
        if isinstance(op, Park):
            self._bells.park(op, lambda: self._most(op.id))
            return None
        answers = []
        for call in self._calls(op):
            self._combiner.carry_out(call)
            answers.append(self._finished(call))
        return _joined(op, answers)

    async def aexecute(self, op: Op) -> Answer:
        """The same for a task."""
        if isinstance(op, Park):
            await self._bells.apark(op, lambda: self._most(op.id))
            return None
        answers = []
        for call in self._calls(op):
            await self._turns_here().carry_out(call)
            answers.append(self._finished(call))
        return _joined(op, answers)

    def close(self) -> None:
        """Close the connections of threads, and those of event loops that are still running; a
        task had better `aclose`.
        """
        self._listener.close()
        self._combiner.close()
        for loop, turns in list(self._turns.items()):
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(turns.aclose(), loop)
        self._turns.clear()

    async def aclose(self) -> None:
        """Close all connections, awaiting those of this event loop."""
        turns = self._turns.pop(asyncio.get_running_loop(), None)
        if turns is not None:
            await turns.aclose()
        self.close()

    def _turns_here(self) -> Turns:
        loop = asyncio.get_running_loop()
        turns = self._turns.get(loop)
        if turns is None:
            for other in [other for other in self._turns if other.is_closed()]:
                del self._turns[other]
            turns = self._turns[loop] = Turns(self._link)
        return turns

    def _most(self, id: str) -> float:
        """Seconds after which somebody in line looks without having been rung for."""
        if self._own_clock:
            return inf
        if not self._listener.hears:
            return DEAF
        return SAFETY if id in self._first else inf

    # -- from operations to calls ----------------------------------------------------------------

    def _calls(self, op: Op) -> list[Call]:
        """What to send for an operation: one call, but for buckets in several slots that are only
        looked at, and nothing for reservations that cannot exist.
        """
        if isinstance(op, Reserve):
            shard = self._everything or self._one_shard(_owners(op))
            self._sent.reserving(op, shard)
            if op.patience > 0.0:  # from now on it can be rung for
                self._bells.expect(op.id)
                self._listener.start()
            return [Call(op, shard)]
        if isinstance(op, Peek):
            buckets: dict[bytes, list[Any]] = {}
            for owner, limit in op.buckets:
                buckets.setdefault(self._shard(owner), []).append((owner, limit))
            return [Call(Peek(tuple(those)), shard) for shard, those in buckets.items()]
        if isinstance(op, Adjust):
            return [Call(op, self._one_shard(frozenset(c.owner for c in op.changes)))]
        if isinstance(op, Merge):
            return [Call(op, self._shard(_SUMMARIES))]
        if isinstance(op, (Settle, Renew, Release)):
            if isinstance(op, Settle):
                self._sent.settling(op.id)
            elif isinstance(op, Release):
                self._forget(op.id)
            found = self._everything or self._sent.shard(op.id)
            return [Call(op, found)] if found is not None else []
        raise TypeError(f"the redis backend does not know the operation {op!r}")

    def _shard(self, owner: Owner) -> bytes:
        """The key that stands for all that is in an owner's slot."""
        if self._everything is not None:
            return self._everything
        if self._scope == "global":
            tag: Owner = _EVERYBODY
        elif owner[0] == "user" and owner[1] and self._scope == "org":
            tag = ("org", owner[1])
        else:
            tag = owner
        return b"%s{%s}:leases" % (self._prefix.encode(), wire.owner_name(tag))

    def _one_shard(self, owners: frozenset[Owner]) -> bytes:
        shards = {self._shard(owner) for owner in owners} or {self._shard(_EVERYBODY)}
        if len(shards) > 1:
            kinds = {owner[0] for owner in owners}
            needed = "global" if kinds - {"user", "org"} else "org"
            raise ConfigurationError(
                f"this operation has limits per {' and '.join(sorted(kinds))}, whose buckets are "
                f"in different slots of the cluster; open the backend with scope={needed!r}"
            )
        return shards.pop()

    def _finished(self, call: Call) -> Answer:
        op, answer = call.op, call.answer
        if isinstance(op, Reserve):
            if not isinstance(answer, Queued):
                self._forget(op.id)
            elif answer.first:
                self._first.add(op.id)
        return call.result()

    def _forget(self, id: str) -> None:
        """It is not in line any more."""
        self._bells.forget(id)
        self._first.discard(id)

    def __repr__(self) -> str:
        return f"<RedisBackend {self._place}>"


def _owners(op: Reserve) -> frozenset[Owner]:
    return frozenset(charge.owner for each in op.candidates for charge in each.charges)


def _joined(op: Op, answers: list[Answer]) -> Answer:
    """One answer for an operation that was sent in parts, or not at all."""
    if isinstance(op, Peek) and len(answers) != 1:
        parts = cast("list[tuple[BucketState, ...]]", answers)
        found = {(state.owner, state.limit.id): state for part in parts for state in part}
        return tuple(found[owner, limit.id] for owner, limit in op.buckets)
    if answers:
        return answers[0]
    if isinstance(op, Settle):
        return Settled(first=False, late=True, left=())
    return False if isinstance(op, Renew) else None


_backends: weakref.WeakSet[RedisBackend] = weakref.WeakSet()


def _after_fork() -> None:
    for backend in list(_backends):
        backend._begin()


os.register_at_fork(after_in_child=_after_fork)
