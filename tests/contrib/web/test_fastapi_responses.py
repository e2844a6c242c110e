"""Streams, clients that hang up, and reservations around endpoints, over real sockets."""

from __future__ import annotations

import gc
import http.client
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")


from quotaguard import (
    Guard,
)
from quotaguard.contrib.asgi import ABANDONED
from quotaguard.guard import LEASE_SECONDS
from quotaguard.testing import FakeClock, FakeProvider, Reply
from quotaguard.testing.clock import START

from .chat_app import chat_app
from .server import ask, asking, settled

COST = 19
"""What the provider says a call used."""


class Noticing:
    """Middleware that notices when a client has gone."""

    def __init__(self, app: Any, gone: threading.Event) -> None:
        self.app, self.gone = app, gone

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass everything on."""

        async def noticing() -> Any:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone.set()
            return message

        await self.app(scope, noticing, send)


@pytest.mark.parametrize("path", ["/streamed", "/streamed-from-a-thread"])
def test_a_stream_that_is_refused_at_once_is_429(
    path: str, serve: Callable[..., int], guard: Guard
) -> None:
    """The head waits for the first of the body, so it is not too late for a status."""
    with guard.hold(user="alice", input_tokens=95, output_tokens=0):
        answer = ask(serve(), path)
    assert (answer.status, answer.json["limit"]) == (429, "100 tokens/day")


def test_a_stream_that_is_refused_in_the_middle_breaks_off(
    serve: Callable[..., int], guard: Guard
) -> None:
    """The client sees that something is missing; what was used is charged."""
    port = serve()
    with guard.hold(user="alice", input_tokens=60, output_tokens=0):
        with asking(port, "/two-in-a-stream", body={"most": 20}) as response:
            assert response.status == 200
            with pytest.raises(http.client.IncompleteRead) as broken:
                response.read()
        assert broken.value.partial == b"a b c d"
    assert settled(guard) == 100 - 60 - COST


def test_a_client_that_hangs_up_pays_for_what_arrived(
    serve: Callable[..., int], guard: Guard, provider: FakeProvider
) -> None:
    """No reservation stays open."""
    port, go_on = serve(), threading.Event()
    provider.enqueue(Reply(text="a b c d e f", input_tokens=12, hold_after=(2, go_on)))
    with asking(port, "/streamed", body={"most": 50}) as response:
        assert response.read(2) == b"a "
        assert guard.peek(user="alice")[0].held > 50
    assert 100 - 30 < settled(guard) < 100 - 10
    go_on.set()


def test_a_stream_that_nobody_reads_on_is_given_up(
    serve: Callable[..., int], guard: Guard, provider: FakeProvider
) -> None:
    """The generator of a thread lies in a reference cycle when the client has hung up. The lease
    soon ends by itself, and what arrived is charged when the garbage is collected.
    """
    app, go_on, gone = chat_app(guard, provider), threading.Event(), threading.Event()
    app.add_middleware(Noticing, gone=gone)
    port, clock = serve(app), guard.clock
    assert isinstance(clock, FakeClock)
    provider.enqueue(Reply(text="a b c d e f", input_tokens=12, hold_after=(2, go_on)))
    gc.disable()
    try:
        with asking(port, "/streamed-from-a-thread", body={"most": 50}) as response:
            assert response.read(2) == b"a "
        assert gone.wait(10)
        go_on.set()  # a thread cannot be interrupted
        deadline = time.monotonic() + 10
        while guard.peek(user="alice")[0].held and time.monotonic() < deadline:
            time.sleep(0.005)
            clock.advance(1)
        kept = settled(guard)
    finally:
        gc.enable()
    assert ABANDONED <= clock.now() - START < LEASE_SECONDS
    gc.collect()
    deadline = time.monotonic() + 10
    while (left := settled(guard)) == kept and time.monotonic() < deadline:
        time.sleep(0.005)
    assert 100 - 30 < left < kept <= 100 - 10


@pytest.mark.parametrize(
    ("text", "status", "charged"),
    [
        ("say nothing", 200, 10 + 40),
        ("tell", 200, 5 + 6),
        ("ask", 200, COST),
        ("not found", 404, 10),
        ("fail", 500, 10),
    ],
)
def test_a_reservation_around_an_endpoint_is_settled(
    text: str, status: int, charged: int, serve: Callable[..., int], guard: Guard
) -> None:
    """By what the lease was told, what guarded clients spent, or as reserved; its input if the
    endpoint failed. It is done when the client has its answer.
    """
    answer = ask(serve(), "/reserved", body={"text": text, "most": 40})
    assert answer.status == status
    (state, _) = guard.peek(user="alice")
    if status != 500:  # that answer is made outside
        assert (state.left, state.held) == (100 - charged, 0)
        assert f'"100 tokens/day";r={100 - charged};' in answer.fields["ratelimit"]
    assert settled(guard) == 100 - charged


def test_a_reservation_around_a_stream_lasts_as_long(
    serve: Callable[..., int], guard: Guard
) -> None:
    """It is open while the body is made, and settled before the end of it is sent."""
    answer = ask(serve(), "/reserved-stream", body={"most": 40})
    assert answer.body == "somemore"
    assert guard.peek(user="alice")[0].left == 98


def test_an_endpoint_whose_reservation_is_refused_does_not_run(
    serve: Callable[..., int], guard: Guard, provider: FakeProvider
) -> None:
    """The dependency comes first."""
    app = chat_app(guard, provider)
    answer = ask(serve(app), "/reserved", body={"most": 200})
    assert (answer.status, app.state.seen) == (413, [])
