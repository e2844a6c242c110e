"""The ASGI middleware, without a framework."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from quotaguard import ConfigurationError, Guard, Identity, QuotaExceeded, errands
from quotaguard.backends.memory import MemoryBackend
from quotaguard.contrib.asgi import QuotaMiddleware, _closing, response_of
from quotaguard.core.ops import Answer, Op, Settle
from quotaguard.identity import current
from quotaguard.testing import FakeClock

Messages = list[dict[str, Any]]
START = {"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]}
BODY = {"type": "http.response.body", "body": b"all"}
MORE = {"type": "http.response.body", "body": b"some", "more_body": True}


def new_guard(**options: Any) -> Guard:
    """A guard with one daily limit for each user, at a time that stands still."""
    return Guard(limits=["100 tokens/day"], **({"clock": FakeClock()} | options))


def left(guard: Guard, user: str = "ann") -> tuple[float, float]:
    """What a user's bucket has left, and what is held of it."""
    return guard.peek(user=user)[0][2:4]


async def serve(
    app: Any, guard: Guard, identify: Any = lambda scope: "ann", kind: str = "http"
) -> Messages:
    """What goes out when one connection is served."""
    sent: Messages = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    await QuotaMiddleware(app, guard, identify)({"type": kind}, receive, send)
    return sent


async def hold(guard: Guard, used: int) -> None:
    """A call that uses so many tokens."""
    async with guard.ahold(input_tokens=used, output_tokens=0):
        pass


def by_header(scope: Any) -> str | None:
    """A blocking way to know who calls."""
    return "ann" if scope["type"] == "http" else None


async def by_database(scope: Any) -> Identity:
    """One that waits."""
    await asyncio.sleep(0)
    return Identity("ann", tier="default")


@pytest.mark.anyio
@pytest.mark.parametrize("identify", [by_header, by_database])
async def test_calls_act_for_whoever_is_identified(identify: Callable[..., Any]) -> None:
    """Within the request, and not after it; the app's own header fields stay."""
    guard = new_guard()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hold(guard, 30)
        await send(START)
        await send(BODY)

    head, body = await serve(app, guard, identify)
    assert current().user is None
    assert left(guard) == (70, 0)
    assert body == BODY
    fields = dict(head["headers"])
    assert fields[b"x-own"] == b"1"
    assert fields[b"ratelimit"] == b'"100 tokens/day";r=70;t=86400'
    assert START["headers"] == [(b"x-own", b"1")]


@pytest.mark.anyio
async def test_the_head_waits_for_the_body_only_where_somebody_is_identified() -> None:
    """A stream of the app's own that has nothing to say for hours is not touched."""
    for identify, early in ((lambda scope: "ann", []), (lambda scope: None, [START])):
        seen: list[Messages] = []
        sent: Messages = []

        async def app(
            scope: Any, receive: Any, send: Any, seen: Any = seen, sent: Any = sent
        ) -> None:
            await send(START)
            seen.append(list(sent))
            await send(MORE)
            await send(BODY)

        async def send(message: Any, sent: Any = sent) -> None:
            sent.append(message)

        await QuotaMiddleware(app, new_guard(), identify)({"type": "http"}, None, send)  # type: ignore[arg-type]
        assert seen == [early]
        assert [message["type"][14:] for message in sent] == ["start", "body", "body"]


@pytest.mark.anyio
async def test_other_messages_let_the_head_go_first() -> None:
    """A server may be asked to send a file by itself."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": "/somewhere"})

    sent = await serve(app, new_guard())
    assert [message["type"] for message in sent] == [
        "http.response.start",
        "http.response.pathsend",
    ]


@pytest.mark.anyio
async def test_a_refusal_becomes_the_response_unless_one_has_begun() -> None:
    """Then the server must break it off, so that the client sees that something is missing."""
    guard = new_guard()

    async def at_once(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await hold(guard, 101)

    async def too_late(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(MORE)
        await hold(guard, 101)

    head, body = await serve(at_once, guard)
    assert head["status"] == 413
    assert (b"content-length", str(len(body["body"])).encode()) in head["headers"]
    assert (b"x-own", b"1") not in head["headers"]
    with pytest.raises(QuotaExceeded):
        await serve(too_late, guard)


@pytest.mark.anyio
async def test_other_connections_pass() -> None:
    """Web sockets act for the caller, and their refusals are the app's to tell; the rest passes."""
    guard = new_guard()

    async def socket(scope: Any, receive: Any, send: Any) -> None:
        await response_of(scope).reserve(None, 20, 0)
        await send({"type": "websocket.accept"})
        await hold(guard, 101)

    with pytest.raises(QuotaExceeded):
        await serve(socket, guard, kind="websocket")
    assert left(guard) == (80, 0)

    async def lifespan(scope: Any, receive: Any, send: Any) -> None:
        assert current().user is None
        await send({"type": "lifespan.startup.complete"})

    assert len(await serve(lifespan, guard, kind="lifespan")) == 1


@pytest.mark.anyio
async def test_who_calls_is_a_name_or_an_identity() -> None:
    """Anything else is the app's mistake, and told."""
    with pytest.raises(ConfigurationError, match="name or an Identity, not 7"):
        await serve(None, new_guard(), lambda scope: 7)


@pytest.mark.parametrize(
    ("ending", "charged"),
    [("complete", 30), ("gone", 30), ("error", 10), ("raised", 10), ("cancelled", 10)],
)
def test_a_reservation_ends_with_the_response(ending: str, charged: int) -> None:
    """Charged as reserved if the lease was told nothing, its input if the app failed. A client
    that hung up is no failure of the app.
    """
    guard = new_guard()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        lease = await response_of(scope).reserve(None, 10, 20)
        assert (current().user, lease.is_open) == ("ann", True)
        await send({**START, "status": 404 if ending == "error" else 200})
        await send(MORE)
        if ending == "raised":
            raise RuntimeError("a bug")
        if ending == "cancelled":
            raise asyncio.CancelledError
        if ending != "gone":
            await send(BODY)
            assert not lease.is_open

    errors = {"raised": RuntimeError, "cancelled": asyncio.CancelledError}
    if ending in errors:
        with pytest.raises(errors[ending]):
            asyncio.run(serve(app, guard))
    else:
        asyncio.run(serve(app, guard))
    assert left(guard) == (100 - charged, 0)


class Slow(MemoryBackend):
    """A ledger that answers when it may."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock)
        self.asked, self.may = asyncio.Event(), asyncio.Event()

    async def aexecute(self, op: Op) -> Answer:
        """Carry it out in the end."""
        if isinstance(op, Settle):
            self.asked.set()
            await self.may.wait()
        return await super().aexecute(op)


@pytest.mark.anyio
async def test_a_settle_that_is_cancelled_on_the_way_is_carried_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server that cancels the task of a request, even twice, leaves nothing held."""
    monkeypatch.setattr(errands, "ring", lambda guard: None)  # its thread might be quicker
    backend = Slow(FakeClock())
    guard = new_guard(backend=backend, clock=backend._clock)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await response_of(scope).reserve(None, 10, 20)
        await send(START)
        await send(BODY)

    task = asyncio.ensure_future(serve(app, guard))
    await backend.asked.wait()
    backend.asked.clear()
    task.cancel()  # while it settles
    await backend.asked.wait()
    task.cancel()  # while it settles what it left behind
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backend.open_reservations == 1
    backend.may.set()
    await asyncio.gather(*_closing)
    assert left(guard) == (70, 0)
