"""How an answer travels: whole or in a stream, late, held, cut or broken, as its reply has it."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterable
from typing import Any

from .answers import Event
from .framing import AWS, SSE, aws, sse
from .record import Bill, Record
from .replies import Reply
from .routes import Flavour
from .wire import Chunks, Connection, Gone, Request, head

_LONGEST_HOLD = 30.0
_LOOK = 0.05
"""Seconds between looks at whether a held client is still there."""


class Cut(Exception):
    """The reply had the connection cut."""


class Delivery:
    """The way back to one client for one answer.

    Every method raises `Gone` when the client has left or the provider is closing, and `Cut` when
    the reply had the connection cut.
    """

    def __init__(
        self,
        connection: Connection,
        request: Request,
        flavour: Flavour,
        reply: Reply,
        record: Record,
        serial: int,
        closing: threading.Event,
    ) -> None:
        self._connection = connection
        self._request = request
        self._flavour = flavour
        self._reply = reply
        self._record = record
        self._serial = serial
        self._closing = closing
        request_id = "request-id" if flavour == "anthropic" else "x-request-id"
        self.headers = {request_id: f"req_{serial:024x}"}
        """What the head will hold beside the reply's own headers."""

    def before_head(self) -> None:
        """What the reply has happen before a byte is sent."""
        if self._reply.hold is not None:
            self._wait(_LONGEST_HOLD, self._reply.hold)
        if self._reply.latency:
            self._wait(self._reply.latency)
        if self._reply.disconnect_after == 0:
            self._cut()

    def whole(self, content: bytes, status: int, usage: Any, bill: Bill | None) -> None:
        """Sends a body in one piece, or half of it if the reply cuts it."""
        if self._reply.gzip:
            content = gzip.compress(content)
        self.headers["content-length"] = str(len(content))
        first = self._head(status, "application/json")
        if self._reply.disconnect_after is not None:
            self._connection.send(first + content[: len(content) // 2])
            self._cut()
        if usage is not None and bill is not None:
            self._record.report(self._serial, usage, bill)
        self._connection.send(first if self._request.method == "HEAD" else first + content)

    def stream(self, events: Iterable[Event], error: Event, bill: Bill) -> None:
        """Sends a body event by event; `error` is how this endpoint tells that it failed."""
        reply = self._reply
        content_type, frame = (AWS, aws) if self._flavour == "bedrock" else (SSE, sse)
        plan = list(self._scripted(events, error))
        self.headers["transfer-encoding"] = "chunked"
        self.headers["cache-control"] = "no-cache"
        self._connection.send(self._head(reply.status, content_type))
        body = Chunks(self._connection, gzip=reply.gzip)
        chunks = 0
        # Something may be scripted for after the last event; the body's end then comes by itself.
        held = reply.hold_after[0] if reply.hold_after is not None else None
        total = sum(not event.opening for event in plan)
        apart = not plan or total in (held, reply.disconnect_after)
        for place, event in enumerate(plan, start=1):
            if not event.opening:
                self._between(chunks)
                if reply.chunk_latency:
                    self._wait(reply.chunk_latency)
                chunks += 1
            if self._connection.gone():
                raise Gone
            if event.usage is not None:
                self._record.report(self._serial, event.usage, bill)
            body.write(frame(event), last=place == len(plan) and not apart)
        if apart:
            self._between(chunks)
            body.write(b"", last=True)

    def _scripted(self, events: Iterable[Event], error: Event) -> Iterable[Event]:
        """The events that the reply lets through, and the error it ends them with."""
        chunks = 0
        for event in events:
            if self._reply.truncate and event.closing:
                return
            if not event.opening:
                if self._reply.error_after == chunks:
                    yield error
                    return
                chunks += 1
            yield event

    def _between(self, chunks: int) -> None:
        """What the reply has happen after so many chunks."""
        if self._reply.disconnect_after == chunks:
            self._cut()
        if self._reply.hold_after is not None and self._reply.hold_after[0] == chunks:
            self._wait(_LONGEST_HOLD, self._reply.hold_after[1])

    def _cut(self) -> None:
        self._connection.reset()
        raise Cut

    def _head(self, status: int, content_type: str) -> bytes:
        self._record.note(self._serial, status=status)
        headers = {"content-type": self._reply.content_type or content_type, **self.headers}
        if self._reply.gzip:
            headers["content-encoding"] = "gzip"
        headers.update((name.lower(), value) for name, value in self._reply.headers.items())
        if not self._request.keep_alive:
            headers["connection"] = "close"
        return head(status, headers)

    def _wait(self, seconds: float, event: threading.Event | None = None) -> None:
        """Waits for the event, or for the time to pass."""
        awaited = event or self._closing
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not awaited.wait(min(_LOOK, left)):
            if self._closing.is_set() or self._connection.gone():
                raise Gone
        if self._closing.is_set():
            raise Gone
