"""Hearing whom another process has let in: Redis tells each process of its own waiters.

The script publishes on the channel of the process whose waiter is to ask again (``lua/line.lua``),
one thread listens. A connection that breaks is made anew, and whoever waits then asks again.
"""

from __future__ import annotations

import secrets
import threading
import time
from typing import Any

from redis.exceptions import ConnectionError as Disconnected

from ...clock import Clock
from ..bells import Bells
from . import wire
from .connect import Place
from .failure import FAILURES

IDLE = 30.0
"""Seconds without anybody waiting after which the thread ends."""
PAUSE = 0.25
"""Seconds between two attempts to connect."""
SILENCE = 5.0
"""Seconds without a message after which the server is asked whether it is still there, and after
which it is not: who only listens does not notice that a connection was dropped on the way."""


class Listener:
    """Rings the bells of this process as Redis says.

    Attributes:
        process: eight bytes that name the process to those who ring.
        hears: whether it is connected; if not, waiters must look for themselves.
    """

    def __init__(self, place: Place, prefix: str, bells: Bells, clock: Clock) -> None:
        self.process = secrets.token_urlsafe(6).encode()
        self.hears = False
        self._place = place
        self._channel = b"%s!%s" % (prefix.encode(), self.process)
        self._bells = bells
        self._clock = clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self) -> None:
        """Listen, if that is not done yet."""
        with self._lock:  # else it might be about to end
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._listen, name="quotaguard-redis", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """Let the thread end, within a second."""
        self._closed = True

    def _listen(self) -> None:
        while not self._closed:
            try:
                client = self._place.client(timeout=2.0)
                try:
                    self._hear(client.pubsub())
                finally:
                    client.close()
            except FAILURES:
                time.sleep(PAUSE)
            finally:
                self.hears = False
            with self._lock:
                if not len(self._bells) or self._closed:
                    self._thread = None
                    return

    def _hear(self, channel: Any) -> None:
        """Pass messages on until nobody has waited for a while."""
        idle_since = heard_at = time.monotonic()
        asked = False
        try:
            channel.subscribe(self._channel)
            while not self._closed:
                message = channel.get_message(timeout=1.0)
                if message is not None:
                    heard_at, asked = time.monotonic(), False
                elif time.monotonic() - heard_at > (2 * SILENCE if asked else SILENCE):
                    if asked:
                        raise Disconnected("no answer to a PING")
                    channel.ping()
                    asked = True
                if message is not None and message["type"] == "subscribe":
                    self.hears = True
                    self._bells.ring_all()  # what was said before that was not heard
                elif message is not None and message["type"] == "message":
                    self._pass_on(wire.read_rings(message["data"]))
                if len(self._bells):
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > IDLE:
                    return
        finally:
            channel.close()

    def _pass_on(self, rings: list[tuple[str, float]] | None) -> None:
        if rings is None:
            self._bells.ring_all()
        now = self._clock.now()
        for id, seconds in rings or ():
            self._bells.ring(id, now + seconds)
