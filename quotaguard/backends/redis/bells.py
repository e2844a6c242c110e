"""Waking those who wait: Redis tells when buckets get something back, one thread listens.

A Reserve that leaves somebody in line marks the owners of the buckets in the way; the script that
gives such a bucket something back publishes the owner's name (``lua/books.lua``). A message can
be lost, so nobody sleeps longer than `SAFETY` on it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from .connect import Place
from .failure import FAILURES

SAFETY = 5.0
"""Seconds between two looks while messages can come."""
DEAF = 0.25
"""The same while they cannot: the listener is connecting, or Redis is away."""
IDLE = 30.0
"""Seconds without anybody waiting after which the listener ends."""


class _Waiter:
    __slots__ = ("owners", "ring", "rung")

    def __init__(self, owners: frozenset[bytes]) -> None:
        self.owners = owners
        self.rung = False
        self.ring: Callable[[], None] | None = None


class Bells:
    """Who waits for which owners' buckets, in this process."""

    def __init__(self, place: Place, pattern: str) -> None:
        self._place = place
        self._pattern = pattern
        self._lock = threading.Lock()
        self._waiters: dict[str, _Waiter] = {}
        self._thread: threading.Thread | None = None
        self._hears = False
        self._closed = False

    def expect(self, id: str, owners: frozenset[bytes]) -> None:
        """Somebody is about to ask, and may have to wait: from now on no message is missed."""
        with self._lock:
            self._waiters[id] = _Waiter(owners)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._listen, name="quotaguard-redis", daemon=True
                )
                self._thread.start()

    def forget(self, id: str) -> None:
        """It need not wait, or gave up."""
        self._waiters.pop(id, None)

    def listen(self, id: str, ring: Callable[[], None]) -> bool:
        """Call ``ring`` when it is worth asking again; False if it is already."""
        with self._lock:
            waiter = self._waiters.get(id)
            if waiter is None or waiter.rung:
                return False
            waiter.ring = ring
            return True

    @property
    def longest_wait(self) -> float:
        """Seconds after which to look without having been rung for."""
        return SAFETY if self._hears else DEAF

    def close(self) -> None:
        """Let the listener end, within a second."""
        self._closed = True
        self._ring(None)

    def _ring(self, owner: bytes | None) -> None:
        """Wake those who wait for an owner's buckets; None: all."""
        with self._lock:
            waiters = [w for w in self._waiters.values() if owner is None or owner in w.owners]
            for waiter in waiters:
                waiter.rung = True
        for waiter in waiters:
            if waiter.ring is not None:
                waiter.ring()

    def _listen(self) -> None:
        while not self._closed:
            try:
                client = self._place.client(timeout=2.0)
                try:
                    self._hear(client.pubsub(ignore_subscribe_messages=False))
                finally:
                    client.close()
            except FAILURES:
                time.sleep(DEAF)
            finally:
                self._hears = False
            with self._lock:
                if not self._waiters or self._closed:
                    self._thread = None
                    return

    def _hear(self, channel: Any) -> None:
        """Pass messages on until nobody has waited for a while."""
        idle_since = time.monotonic()
        try:
            channel.psubscribe(self._pattern)
            while not self._closed:
                message = channel.get_message(timeout=1.0)
                if message is not None and message["type"] == "psubscribe":
                    self._hears = True
                    self._ring(None)  # what was said before that was not heard
                elif message is not None and message["type"] == "pmessage":
                    self._ring(message["data"])
                if self._waiters:
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > IDLE:
                    return
        finally:
            channel.close()
