"""What the tests of the dashboard share; they are skipped where Starlette or uvicorn is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from quotaguard import Fallback, Guard, Price, QuotaExceeded, Tier
from quotaguard.testing import FakeClock

from .client import Client

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>'",
    "a/../../b?c=d&user=e#f;g%00+h",
    "two\r\nlines: x\t\0",
    "\u202etxt.exe\u2066",
    "אבג العربية 日本 🙂",
    "{{ 7 * 7 }}{% raw %}",
    "..",
    " ",
    "lone \ud800 surrogate",
)
"""Names that somebody might have chosen, to see what happens."""


def call(guard: Guard, user: str, tokens: int = 100, **who: Any) -> None:
    """One call of a user, refused or not."""
    with (
        contextlib.suppress(QuotaExceeded),
        guard.hold(user=user, model="large", input_tokens=tokens, output_tokens=0, **who) as lease,
    ):
        lease.record(input_tokens=tokens, output_tokens=0)


@pytest.fixture
def clock() -> FakeClock:
    """Noon, so that an hour more or less is the same day."""
    clock = FakeClock()
    clock.advance(43_200)
    return clock


@pytest.fixture
def guard(clock: FakeClock) -> Guard:
    """A guard with a journal: alice was downgraded, bob of acme refused."""
    guard = Guard(
        tiers=[
            Tier("free", ["1000 tokens/day"]),
            Tier(
                "pro",
                ["500 tokens/day for large", "2k tokens/day"],
                when_exceeded=Fallback("small"),
            ),
            Tier("team", ["5k tokens/day", "300 tokens/day per org"]),
        ],
        default_tier="free",
        prices={"large": Price(input=10, output=30), "small": Price(input=1, output=3)},
        journal="memory://",
        clock=clock,
    )
    call(guard, "alice", 400, tier="pro")
    clock.advance(3_600)
    call(guard, "alice", 400, tier="pro")
    call(guard, "bob", 200, org="acme", tier="team")
    call(guard, "bob", 200, org="acme", tier="team")
    return guard


_apps: dict[str, Any] = {}


async def _all(scope: Any, receive: Any, send: Any) -> None:
    """The app that a request is meant for."""
    if scope["type"] == "http":
        name = dict(scope["headers"])[b"x-app"].decode()
        await _apps[name](scope, receive, send)


@pytest.fixture(scope="module")  # no thread of it lives on: other tests fork
def _port() -> Iterator[int]:
    from tests.contrib.web.server import serving

    with serving(_all, lifespan="off") as port:
        yield port


@pytest.fixture
def serve(_port: int) -> Iterator[Callable[..., Client]]:
    """Serves an ASGI app on a real socket until the test ends; gives a client of it. All share one
    server: to start and stop one takes longer than most of these tests.
    """

    def start(app: Any, prefix: str = "") -> Client:
        name = str(len(_apps))
        _apps[name] = app
        return Client(_port, prefix, name)

    yield start
    _apps.clear()
