"""Metering what a response's body says, whoever reads it and however it ends.

The SDKs' streams, raw responses and bare HTTP responses all read from ``response.stream``, so the
meter stands there: it sees every byte once, and every way a body can end.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from wrapt import ObjectProxy

from .. import errands
from ..core.lease import AS_RESERVED, Lease, Outcome
from ..counting import count_delivered
from ..events import UsageUnreadable
from ..providers import Provider, Tally, usage_of
from ..usage import Usage

if TYPE_CHECKING:
    from ..guard import Guard

    _Proxy = ObjectProxy[Any]
else:
    _Proxy = ObjectProxy

Event = dict[str, Any]


class Frames(Protocol):
    """Cuts a body into events."""

    def take(self, chunk: bytes, tally: Tally) -> bytes:
        """Tell the tally of the events that are complete; answers with what the caller is to
        see.
        """
        ...

    def rest(self) -> bytes:
        """What is left at the end for the caller to see."""
        ...


_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")


class ServerSentEvents:
    """``text/event-stream``: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

    def __init__(self, *, editing: bool) -> None:
        self._editing = editing
        self._buffer = b""
        self.done = False

    def take(self, chunk: bytes, tally: Tally) -> bytes:
        data = self._buffer + chunk if self._buffer else chunk
        shown: list[bytes] = []
        start = 0
        for blank in _BLANK_LINE.finditer(data):
            event = data[start : blank.end()]
            start = blank.end()
            if self._hear(event, tally):
                shown.append(event)
        self._buffer = data[start:]
        return b"".join(shown) if self._editing else chunk

    def _hear(self, event: bytes, tally: Tally) -> bool:
        lines = [line[5:] for line in event.splitlines() if line.startswith(b"data:")]
        if not lines:
            return True
        text = b"\n".join(lines)
        if text.strip() == b"[DONE]":
            self.done = True
            return True
        return _hear(text, tally)

    def rest(self) -> bytes:
        return self._buffer if self._editing else b""


class AmazonEvents:
    """``application/vnd.amazon.eventstream``: length-prefixed frames whose payload is
    ``{"bytes": <base64 of the event>}``
    (https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html).
    """

    _PRELUDE = struct.Struct("!II4x")

    def __init__(self) -> None:
        self._buffer = b""
        self.done = False

    def take(self, chunk: bytes, tally: Tally) -> bytes:
        data = self._buffer + chunk
        while len(data) >= self._PRELUDE.size:
            total, headers = self._PRELUDE.unpack_from(data)
            if len(data) < total or total < self._PRELUDE.size + headers + 4:
                break
            payload = data[self._PRELUDE.size + headers : total - 4]
            data = data[total:]
            try:
                inner = base64.b64decode(json.loads(payload)["bytes"])
            except (ValueError, KeyError, TypeError):
                continue
            _hear(inner, tally)
        self._buffer = data
        return chunk

    def rest(self) -> bytes:
        return b""


class WholeBody:
    """A body that is one JSON document."""

    done = False

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def take(self, chunk: bytes, tally: Tally) -> bytes:
        self._chunks.append(chunk)
        return chunk

    def rest(self) -> bytes:
        return b""

    def usage(self) -> Usage | None:
        """The usage in the document."""
        return usage_in(b"".join(self._chunks))


def usage_in(body: bytes) -> Usage | None:
    """The usage that a JSON body states; None if it is no JSON, or states none."""
    try:
        return usage_of(json.loads(body))
    except ValueError:
        return None


def _hear(text: bytes, tally: Tally) -> bool:
    try:
        event = json.loads(text)
    except ValueError:
        return True
    return tally.hear(event) if isinstance(event, dict) else True


class Meter:
    """Hears a body, and settles its lease when the answer is complete or the body ends."""

    def __init__(
        self,
        guard: Guard,
        lease: Lease,
        provider: Provider,
        endpoint: str,
        headers: Any,
        *,
        streaming: bool,
        hiding: bool,
    ) -> None:
        self.guard = guard
        self.lease = lease
        self._provider = provider
        self._endpoint = endpoint
        self._tally = provider.tally(endpoint, hiding)
        kind = str(headers.get("content-type", "")).lower()
        self._frames: ServerSentEvents | AmazonEvents | WholeBody
        if kind.startswith("application/vnd.amazon.eventstream"):
            self._frames = AmazonEvents()
        elif streaming or kind.startswith("text/event-stream"):
            self._frames = ServerSentEvents(editing=hiding)
        else:
            self._frames = WholeBody()
        self._hiding = hiding
        self._unpack: Any = None
        self._opaque = False
        coding = str(headers.get("content-encoding", "identity")).lower()
        if coding in ("gzip", "x-gzip", "deflate"):
            self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)
            if hiding:  # what is taken out must be taken out of plain text
                del headers["content-encoding"]
        elif coding != "identity":
            self._opaque = True
        errands.expect(guard, self)

    @property
    def over(self) -> bool:
        """Whether all that matters was heard."""
        return self._tally.over or self._frames.done

    def take(self, chunk: bytes) -> bytes:
        """Hear a chunk of the body; answers with what the caller is to see of it."""
        if self._opaque:
            return chunk
        plain = chunk
        if self._unpack is not None:
            try:
                plain = self._unpack.decompress(chunk)
            except zlib.error:
                self._opaque = True
                return chunk
        shown = self._frames.take(plain, self._tally)
        return shown if self._hiding or self._unpack is None else chunk

    def rest(self) -> bytes:
        """What the caller is to see after the last chunk."""
        return self._frames.rest()

    def outcome(self, *, complete: bool) -> Outcome:
        """What the call used, as far as the body said."""
        attempts = max(1, self.lease.attempts)
        if isinstance(self._frames, WholeBody):
            used = self._frames.usage() if complete else None
            malformed = complete and used is None
        else:
            used = self._tally.usage()
            malformed = self._tally.malformed
        if used is not None:
            return Outcome(used._replace(requests=attempts), reported=True)
        if malformed:
            lease = self.lease
            event = UsageUnreadable(lease.id, lease.identity, lease.requested, self._endpoint)
            self.guard.tell(event)
        if malformed or self._opaque or isinstance(self._frames, WholeBody):
            return AS_RESERVED
        return Outcome(self._delivered()._replace(requests=attempts))

    def _delivered(self) -> Usage:
        """The input, and the output that reached us: what a stream that says no usage is charged.

        Where a model reasons out of sight, what reached us says little: at least what was reserved.
        """
        model = self.lease.model or ""
        said, delivered = self._tally.cut_off(lambda text: count_delivered(text, model))
        demand = self.lease.demand
        if self._provider.hides_output(model):
            delivered = max(delivered, demand.output_tokens)
        return Usage(1, demand.input_tokens if said is None else said, delivered)

    def settle(self, *, complete: bool) -> None:
        """Settle now, from the reader's own thread."""
        if self.lease.close():
            self.guard.run(self.guard.settlement(self.lease, self.outcome(complete=complete)))

    async def asettle(self, *, complete: bool) -> None:
        """The same in a task."""
        if self.lease.close():
            plan = self.guard.settlement(self.lease, self.outcome(complete=complete))
            await self.guard.arun(plan)

    def cut(self) -> None:
        """Settle soon: the body was closed or dropped, perhaps by a finalizer."""
        if self.lease.close():
            self.guard.abandon(self.lease, partial(self.outcome, complete=False))

    def __del__(self) -> None:
        self.cut()


class MeteredBody(_Proxy):
    """Stands in the place of ``response.stream``."""

    def __init__(self, stream: Any, meter: Meter) -> None:
        super().__init__(stream)
        self._self_meter = meter

    def __iter__(self) -> Iterator[bytes]:
        meter: Meter = self._self_meter
        now = meter.guard.clock.now
        try:
            for chunk in self.__wrapped__:
                shown = meter.take(chunk)
                if meter.over:
                    meter.settle(complete=True)
                elif now() >= meter.lease.renew_at:
                    meter.guard.run(meter.guard.renewal(meter.lease))
                if shown:
                    yield shown
            if rest := meter.rest():
                yield rest
        except GeneratorExit:
            meter.cut()
            raise
        except BaseException:
            meter.settle(complete=False)
            raise
        meter.settle(complete=True)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        meter: Meter = self._self_meter
        now = meter.guard.clock.now
        try:
            async for chunk in self.__wrapped__:
                shown = meter.take(chunk)
                if meter.over:
                    await meter.asettle(complete=True)
                elif now() >= meter.lease.renew_at:
                    await meter.guard.arun(meter.guard.renewal(meter.lease))
                if shown:
                    yield shown
            if rest := meter.rest():
                yield rest
        except GeneratorExit:
            meter.cut()
            raise
        except BaseException:
            await meter.asettle(complete=False)
            raise
        await meter.asettle(complete=True)

    def close(self) -> None:
        """Close what it stands for."""
        try:
            self.__wrapped__.close()
        finally:
            self._self_meter.cut()

    async def aclose(self) -> None:
        """Close what it stands for."""
        try:
            await self.__wrapped__.aclose()
        finally:
            self._self_meter.cut()
