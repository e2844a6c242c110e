"""`token_limited` on every kind of function; what an enclosed client does is in test_hold."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from quotaguard import (
    ConfigurationError,
    Guard,
    ModelNotAllowed,
    QuotaExceeded,
    Tier,
    Usage,
    acting_as,
    token_limited,
)
from quotaguard.core.lease import Lease
from quotaguard.hold import enclosing
from quotaguard.identity import current
from quotaguard.testing import FakeClock

CAPACITY = 1000
USED = {"usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}}
"""A provider's answer, as JSON."""
ASKED: dict[str, Any] = {"user": "ann", "input_tokens": 10, "output_tokens": 20}


@pytest.fixture
def guard() -> Guard:
    """A guard with one daily limit for each user, at a time that stands still."""
    return Guard(limits=[f"{CAPACITY} tokens/day"], clock=FakeClock())


def spent(guard: Guard, user: str = "ann", **who: str) -> float:
    """What was drawn from a user's bucket, once no reservation is open (a finalizer's errand may
    be in another thread's hands).
    """
    while guard.backend.open_reservations:
        guard.run_errands()
    return CAPACITY - guard.peek(user=user, **who)[0].left


def answer(x: int) -> Any:
    """What the functions below say; asked for 0 it fails."""
    if x == 0:
        raise OSError("away")
    return USED


def plain(x: int = 1) -> Any:
    """A function."""
    return answer(x)


async def coroutine(x: int = 1) -> Any:
    """A coroutine function."""
    await asyncio.sleep(0)
    return answer(x)


def generator(x: int = 1) -> Iterator[Any]:
    """A generator."""
    yield "text"
    yield answer(x)


async def agenerator(x: int = 1) -> AsyncIterator[Any]:
    """An async generator."""
    yield "text"
    yield answer(x)


KINDS = [plain, coroutine, generator, agenerator]


def consume(result: Any) -> Any:
    """Call, await or iterate to the end, whatever the kind; gives the last value."""

    async def last(items: AsyncIterator[Any]) -> Any:
        return [item async for item in items][-1]

    if inspect.isasyncgen(result):
        return asyncio.run(last(result))
    if inspect.iscoroutine(result):
        return asyncio.run(result)
    return list(result)[-1] if inspect.isgenerator(result) else result


@pytest.mark.parametrize("function", KINDS, ids=lambda f: f.__name__)
def test_it_keeps_what_a_function_is(guard: Guard, function: Callable[..., Any]) -> None:
    """Name, documentation, signature and kind are the function's own."""
    limited = token_limited(guard, **ASKED)(function)
    assert limited.__name__ == function.__name__
    assert limited.__doc__ == function.__doc__
    assert inspect.signature(limited) == inspect.signature(function)
    for kind in (
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
    ):
        assert kind(limited) == kind(function)


@pytest.mark.parametrize("function", KINDS, ids=lambda f: f.__name__)
def test_usage_is_read_from_what_it_gives(guard: Guard, function: Callable[..., Any]) -> None:
    """A returned or yielded response says what was used; the caller gets it unchanged."""
    assert consume(token_limited(guard, **ASKED)(function)()) is USED
    assert spent(guard) == 12


@pytest.mark.parametrize("function", KINDS, ids=lambda f: f.__name__)
def test_a_refusal_comes_before_the_body(guard: Guard, function: Callable[..., Any]) -> None:
    """Nothing of the function runs (it would fail), and nothing is charged."""
    limited = token_limited(guard, user="ann", input_tokens=CAPACITY, output_tokens=1)(function)
    with pytest.raises(QuotaExceeded):
        consume(limited(0))
    assert spent(guard) == 0


def test_usage_is_read_from_an_object_too(guard: Guard) -> None:
    """An SDK's model has attributes where JSON has keys."""
    usage = SimpleNamespace(input_tokens=3, output_tokens=4)
    token_limited(guard, **ASKED)(lambda: SimpleNamespace(usage=usage))()
    assert spent(guard) == 7


def test_who_says_nothing_is_charged_as_reserved(guard: Guard) -> None:
    """A result without usage leaves the reservation as the charge."""
    token_limited(guard, **ASKED)(lambda: "text")()
    assert spent(guard) == 30


@pytest.mark.parametrize("function", KINDS, ids=lambda f: f.__name__)
def test_an_exception_keeps_the_input_charged(guard: Guard, function: Callable[..., Any]) -> None:
    """The prompt may have been sent; the error reaches the caller."""
    with pytest.raises(OSError, match="away"):
        consume(token_limited(guard, **ASKED)(function)(0))
    assert spent(guard) == 10


class Bot:
    """Methods of each kind."""

    def __init__(self, owner: str) -> None:
        self.owner = owner


@pytest.mark.parametrize("through", ["class", "instance"])
def test_class_and_static_methods(guard: Guard, through: str) -> None:
    """Decorated below or above, they are called through class or instance alike."""
    limit = token_limited(guard, user=lambda x, **_: x, input_tokens=10, output_tokens=0)

    class Service(Bot):
        @classmethod
        @limit
        def below(cls, x: str) -> type:
            """Below."""
            return cls

        @limit
        @classmethod
        def above(cls, x: str) -> type:
            """Above."""
            return cls

        @staticmethod
        @limit
        def static_below(x: str) -> str:
            """Below."""
            return x

        @limit
        @staticmethod
        def static_above(x: str) -> str:
            """Above."""
            return x

    on: Any = Service if through == "class" else Service("ann")
    assert on.below("ann") is on.above("ann") is Service
    assert on.static_below("ann") == on.static_above("ann") == "ann"
    assert (on.above.__doc__, on.static_above.__doc__) == ("Above.", "Above.")
    assert list(inspect.signature(on.below).parameters) == ["x"]
    assert spent(guard) == 40


def test_methods_are_charged_to_what_self_says(guard: Guard) -> None:
    """Callables get ``self``, and ``cls`` for class methods."""
    names = {"user": lambda self: self.owner, "input_tokens": lambda self, text: len(text)}

    class Service(Bot):
        house = "ben"

        @token_limited(guard, output_tokens=0, **names)
        def ask(self, text: str) -> str:
            return text

        @classmethod
        @token_limited(guard, user=lambda cls, **_: cls.house, input_tokens=3, output_tokens=0)
        def announce(cls) -> None:
            """Charged to the class's own user."""

    assert Service("ann").ask("12345") == "12345"
    Service.announce()
    assert (spent(guard), spent(guard, "ben")) == (5, 3)


def test_each_argument_can_be_a_callable() -> None:
    """With or without ``**_``; defaults and extra keywords are among what they get."""
    guard = Guard(
        tiers=[Tier("pro", ["1000 tokens/day", "1000 tokens/day per org"], models=["big", "m"])],
        clock=FakeClock(),
    )

    @token_limited(
        guard,
        user=lambda user_id: user_id,
        tier=lambda **_: "pro",
        org=lambda team, **_: team,
        model=lambda extra, **_: extra,
        input_tokens=lambda text, **_: len(text),
        output_tokens=lambda most: most,
    )
    def ask(user_id: str, text: str, *, team: str = "acme", most: int = 6, **more: str) -> str:
        return text

    ask("ann", "1234", extra="m")
    personal, shared = guard.peek(user="ann", org="acme", tier="pro")
    assert (personal.left, shared.left) == (990, 990)
    with pytest.raises(ModelNotAllowed):
        ask("ann", "1234", extra="other")


def test_a_callable_may_leave_things_open(guard: Guard) -> None:
    """None means: no such name, no input, an output that never refuses."""

    @token_limited(
        guard, user="ann", org=lambda: None, input_tokens=lambda: None, output_tokens=lambda: None
    )
    def ask(lease: Lease) -> Usage:
        return lease.reserved

    assert ask() == Usage(1, 0, guard.output_guess)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"user": "x"}, "user=lambda x, \\*\\*_: x"),
        ({"input_tokens": -1, "user": "ann"}, "input_tokens is a number of tokens >= 0, not -1"),
        ({"output_tokens": True, "user": "ann"}, "output_tokens is a number"),
        ({"user": ""}, "user is a non-empty string"),
        ({"user": lambda x, **_: x}, "user is a non-empty string or None, not 1"),
        ({}, "no user"),
    ],
    ids=["parameter", "negative", "bool", "empty", "number", "nobody"],
)
def test_wrong_arguments_are_named(guard: Guard, asked: dict[str, Any], message: str) -> None:
    """At decoration if that can tell, else at the call."""
    with pytest.raises(ConfigurationError, match=message):
        token_limited(guard, **asked)(plain)()


def test_it_wants_a_guard() -> None:
    """``@token_limited`` without parentheses says what is right."""
    limited: Any = token_limited
    with pytest.raises(ConfigurationError, match=r"@token_limited\(guard\)"):
        limited(plain)


def test_a_lease_is_lent_only_when_left_out(guard: Guard) -> None:
    """What is recorded on it counts, before what is returned; a caller's own argument stays."""

    @token_limited(guard, **ASKED)
    def ask(text: str, lease: Any = None) -> Any:
        if isinstance(lease, Lease):
            lease.record(input_tokens=1, output_tokens=2)
            lease.record(input_tokens=1)
            return USED
        return lease

    assert ask("hello") is USED
    assert spent(guard) == 4
    assert ask("hello", "mine") == "mine"
    assert ask("hello", lease=None) is None
    assert spent(guard) == 64


def test_a_dropped_generator_is_settled_by_an_errand(guard: Guard) -> None:
    """A consumer that walks away pays the input, or what was said so far."""
    limited = token_limited(guard, **ASKED)(generator)
    for pull, cost in ((0, 0), (1, 10), (2, 22)):
        items = limited()
        for _ in range(pull):
            next(items)  # type: ignore[call-overload]
        del items
        gc.collect()
        assert spent(guard) == cost


def test_a_dropped_async_generator_is_settled_too(guard: Guard) -> None:
    """At the latest when the loop ends."""

    async def main() -> None:
        items = token_limited(guard, **ASKED)(agenerator)()
        await items.__anext__()
        del items
        gc.collect()

    asyncio.run(main())
    assert spent(guard) == 10


def test_generators_are_passed_through(guard: Guard) -> None:
    """What is sent, thrown and returned, and a close, reach the generator as ever."""
    seen: list[object] = []

    @token_limited(guard, **ASKED)
    def echo() -> Generator[object, object, dict[str, Any]]:
        try:
            seen.append((yield "first"))
            try:
                yield "second"
            except KeyError as error:
                yield error
            return USED
        finally:
            seen.append("closed")

    talk = echo()
    assert (next(talk), talk.send("hello")) == ("first", "second")
    thrown = KeyError("thrown")
    assert talk.throw(thrown) is thrown
    with pytest.raises(StopIteration) as stop:
        next(talk)
    assert stop.value.value is USED
    assert seen == ["hello", "closed"]
    assert spent(guard) == 12
    other = echo()
    next(other)
    other.close()
    assert seen[2:] == ["closed"]
    assert spent(guard) == 22


def test_async_generators_are_passed_through(guard: Guard) -> None:
    """The same for asend, athrow and aclose."""
    seen: list[object] = []

    @token_limited(guard, **ASKED)
    async def echo() -> Any:
        try:
            seen.append((yield "first"))
            try:
                yield "second"
            except KeyError as error:
                yield error
        finally:
            seen.append("closed")

    async def main() -> None:
        talk = echo()
        assert await talk.asend(None) == "first"
        assert await talk.asend("hello") == "second"
        thrown = KeyError("thrown")
        assert await talk.athrow(thrown) is thrown
        await talk.aclose()

    asyncio.run(main())
    assert seen == ["hello", "closed"]
    assert spent(guard) == 10


def test_a_generators_hold_is_not_its_consumers(guard: Guard) -> None:
    """Between items the consumer acts for itself, inside the generator it is the hold's user."""
    inside: list[tuple[bool, str | None]] = []

    def note() -> None:
        inside.append((enclosing(guard) is not None, current().user))

    @token_limited(guard, **ASKED)
    def twice() -> Iterator[int]:
        for number in range(2):
            note()
            yield number

    with acting_as(org="acme"):
        for _ in twice():
            assert enclosing(guard) is None
            assert current().user is None
    assert inside == [(True, "ann")] * 2
    assert spent(guard, org="acme") == 30
