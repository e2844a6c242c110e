"""What the tests of guarded clients share: a guard that can be audited, and both ways of calling.

A scenario is written once, as a coroutine, and run with the blocking client and with the awaiting
one: `got`, `each` and `entered` take what either gives.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, NamedTuple

from quotaguard import Guard, receipt
from quotaguard.testing import FakeClock, FakeProvider

WAYS = ("sync", "async")
CAPACITY = 1_000_000
METRICS = ("tokens", "input_tokens", "output_tokens", "requests")
LIMITS = tuple(f"{CAPACITY} {metric}/day" for metric in METRICS)
"""Calendar windows: nothing comes back while a test looks."""


class Spent(NamedTuple):
    """What a guard's buckets were charged."""

    tokens: float
    input_tokens: float
    output_tokens: float
    requests: float


def new_guard(**more: Any) -> Guard:
    """A guard with a bucket for each metric, whose clock stands still."""
    return Guard(**{"limits": LIMITS, "clock": FakeClock(), "anonymous": "somebody"} | more)


def spent(guard: Guard) -> Spent:
    """What has been drawn from its buckets so far."""
    left = {state.limit.metric: state.left for state in guard.peek()}
    return Spent(*(CAPACITY - left[metric] for metric in METRICS))


def reported(provider: FakeProvider, requests: int = 1) -> Spent:
    """What the buckets should have been charged by what the provider said."""
    served = provider.served
    tokens = served.input_tokens + served.output_tokens
    return Spent(tokens, served.input_tokens, served.output_tokens, requests)


def as_reserved(response: object) -> Spent:
    """What they should have been charged where nobody said anything."""
    reserved = receipt(response).reserved
    return Spent(reserved.tokens, reserved.input_tokens, reserved.output_tokens, 1)


def run(scenario: Awaitable[Any]) -> Any:
    """Run a scenario to its end."""

    async def main() -> Any:
        return await scenario

    return asyncio.run(main())


async def got(value: Any) -> Any:
    """A value, awaited if it has to be."""
    return await value if inspect.isawaitable(value) else value


async def each(items: Any) -> AsyncIterator[Any]:
    """The items of an iterator of either kind."""
    if hasattr(items, "__aiter__"):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


class entered:  # noqa: N801  # reads as a verb
    """``async with`` for context managers of either kind."""

    def __init__(self, manager: Any) -> None:
        self._manager = manager

    async def __aenter__(self) -> Any:
        if isinstance(self._manager, AbstractContextManager):
            return self._manager.__enter__()
        return await self._manager.__aenter__()

    async def __aexit__(self, *error: Any) -> Any:
        if isinstance(self._manager, AbstractContextManager):
            return self._manager.__exit__(*error)
        return await self._manager.__aexit__(*error)


def reach(client: Any, path: str) -> Any:
    """What a dotted path leads to, None if this version of the SDK has no such thing."""
    for name in path.split("."):
        client = getattr(client, name, None)
    return client


def http_library(client: Any) -> Any:
    """The HTTP library that a client speaks through: httpx or httpx2."""
    names = [cls.__module__.partition(".")[0] for cls in type(client._client).__mro__]
    return import_module(next(name for name in names if name.startswith("httpx")))
