"""Metering what a response's body says, whoever reads it and however it ends.

The SDKs' streams, raw responses and bare HTTP responses all read from ``response.stream``, so the
meter stands there: it sees every byte once, and every way a body can end.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from wrapt import ObjectProxy

from .. import errands
from ..core.lease import AS_RESERVED, Lease, Outcome
from ..counting import count_delivered
from ..events import UsageUnreadable
from ..providers import Provider
from ..usage import Usage
from .frames import AmazonEvents, Frames, ServerSentEvents, WholeBody

if TYPE_CHECKING:
    from ..guard import Guard

    _Proxy = ObjectProxy[Any]
else:
    _Proxy = ObjectProxy


def _decoder_like(http: Any) -> Any:
    """A decoder of our own for a response's body, as its own reader will use: whatever codings the
    HTTP library knows here (gzip, deflate, with extras br and zstd).
    """
    return type(http)(200, headers=http.headers)._get_content_decoder()


def _joined(decoded: Any) -> bytes:
    """What a decoder gave: httpx's bytes, or httpx2's pieces."""
    return decoded if isinstance(decoded, bytes) else b"".join(decoded)


BACKGROUND = 10_000
"""Background responses of a guard that are remembered; the leases of older ones run out."""


def look_later(guard: Guard, response: str, lease: Lease) -> None:
    """Keep the lease of a response that goes on: a later look at it will say what it used."""
    guard.background[response] = lease
    for oldest in list(guard.background)[:-BACKGROUND]:
        guard.background.pop(oldest, None)


def unreadable(guard: Guard, lease: Lease, endpoint: str) -> Outcome:
    """The outcome of an answer whose usage can't be read; the hooks are told."""
    guard.tell(UsageUnreadable(lease.id, lease.identity, lease.requested, endpoint))
    return AS_RESERVED


class Meter:
    """Hears a body, and settles its lease when the answer is complete or the body ends.

    ``whole`` tells the outcome of a whole answer, None if that is not known yet; ``response`` is
    the id of the background response that the body is a look at.
    """

    def __init__(
        self,
        guard: Guard,
        lease: Lease,
        provider: Provider,
        endpoint: str,
        http: Any,
        whole: Callable[[Any], Outcome | None],
        *,
        streaming: bool,
        hiding: bool,
        response: str | None = None,
    ) -> None:
        self.guard = guard
        self.lease = lease
        self._provider = provider
        self._endpoint = endpoint
        self._whole = whole
        self._told = False
        self._response = response
        self._tally = provider.tally(endpoint, hiding)
        kind = str(http.headers.get("content-type", "")).lower()
        self._frames: Frames
        if kind.startswith("application/vnd.amazon.eventstream"):
            self._frames = AmazonEvents()
        elif kind.startswith("text/event-stream") or (streaming and "json" not in kind):
            self._frames = ServerSentEvents(editing=hiding)
        else:
            self._frames = WholeBody()
        self._hiding = hiding
        self._opaque = False
        self._decoder: Any = None
        if "content-encoding" in http.headers and not http.is_stream_consumed:
            self._decoder = _decoder_like(http)
            if hiding:  # what is taken out must be taken out of plain text
                del http.headers["content-encoding"]
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
        if self._decoder is not None:
            try:
                plain = _joined(self._decoder.decode(chunk))
            except Exception:  # noqa: BLE001 -- httpx.DecodingError, of whichever httpx it is
                self._opaque = True
                return chunk
        shown = self._frames.take(plain, self._tally)
        return shown if self._hiding or self._decoder is None else chunk

    def rest(self) -> bytes:
        """What the caller is to see after the last chunk."""
        return self._frames.rest(self._tally)

    def ending(self, *, complete: bool) -> Outcome | None:
        """The outcome, now that the body has ended; None if it is known, or will be known later."""
        if self._told:
            return None
        if complete and isinstance(self._frames, WholeBody):
            self._told = True
            return self._whole(self._frames.answer())
        return None if self._goes_on() else self._outcome()

    def _goes_on(self) -> bool:
        """Whether the response runs on without its reader, so that a later look will tell."""
        if self._told:
            return True
        response = self._response or self._tally.background
        if response is None or self.over or not self.lease.is_open:
            return False
        look_later(self.guard, response, self.lease)
        return True

    def _outcome(self) -> Outcome:
        """What the call used, as far as its body said."""
        used = self._tally.usage()
        if used is not None:
            return self.lease.charged(used, reported=True)
        if self._opaque or isinstance(self._frames, WholeBody):
            return AS_RESERVED
        if self._tally.malformed:
            return unreadable(self.guard, self.lease, self._endpoint)
        return self.lease.charged(self._delivered())

    def _delivered(self) -> Usage:
        """The input, and the output that reached us: what a stream that says no usage is charged.

        Where a model reasons out of sight, what reached us says little: at least what was reserved.
        """
        model = self.lease.model or ""
        said, delivered = self._tally.cut_off(
            self._frames.events(), lambda text: count_delivered(text, model)
        )
        demand = self.lease.demand
        if self._provider.hides_output(model):
            delivered = max(delivered, demand.output_tokens)
        return Usage(1, demand.input_tokens if said is None else said, delivered)

    def settle(self, *, complete: bool) -> None:
        """Settle now, from the reader's own thread."""
        outcome = self.ending(complete=complete)
        if outcome is not None and self.lease.close():
            self.guard.finish(self.guard.settlement(self.lease, outcome))

    async def asettle(self, *, complete: bool) -> None:
        """The same in a task."""
        outcome = self.ending(complete=complete)
        if outcome is not None and self.lease.close():
            await self.guard.afinish(self.guard.settlement(self.lease, outcome))

    def cut(self) -> None:
        """Settle soon: the body was closed or dropped, perhaps by a finalizer."""
        if not self._goes_on() and self.lease.close():
            self.guard.abandon(self.lease, self._outcome)

    def __del__(self) -> None:
        self.cut()


def metered_body(stream: Any, meter: Meter) -> MeteredBody:
    """What stands in the place of ``response.stream``, also for those who ask for its type's name:
    the SDKs' tests do, to see who traces a request.
    """
    cls = type(stream)
    found = _bodies.get(cls)
    if found is None:
        found = type(cls.__name__, (MeteredBody,), {"__module__": cls.__module__})
        _bodies[cls] = found
    return found(stream, meter)


_bodies: dict[type, type[MeteredBody]] = {}


class MeteredBody(_Proxy):
    """Hears a body on its way to whoever reads it."""

    def __init__(self, stream: Any, meter: Meter) -> None:
        super().__init__(stream)
        self._self_meter = meter

    def __iter__(self) -> Iterator[bytes]:
        meter: Meter = self._self_meter
        now, lease = meter.guard.clock.now, meter.lease
        try:
            for chunk in self.__wrapped__:
                shown = meter.take(chunk)
                if meter.over:
                    meter.settle(complete=True)
                elif now() >= lease.renew_at:
                    meter.guard.run(meter.guard.renewal(lease))
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
        now, lease = meter.guard.clock.now, meter.lease
        try:
            async for chunk in self.__wrapped__:
                shown = meter.take(chunk)
                if meter.over:
                    await meter.asettle(complete=True)
                elif now() >= lease.renew_at:
                    await meter.guard.arun(meter.guard.renewal(lease))
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
