"""`Guard.hold` and `Guard.ahold`, and what guarded clients do inside one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from quotaguard import (
    ConfigurationError,
    Fallback,
    Guard,
    ModelNotAllowed,
    QuotaExceeded,
    RequestTooLarge,
    Tier,
    Usage,
    acting_as,
    receipt,
    token_limited,
)
from quotaguard.hold import enclosing
from quotaguard.identity import current
from quotaguard.testing import FakeClock, FakeProvider, Reply

CAPACITY = 1000
INNER: dict[str, Any] = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "three words here"}],
    "max_tokens": 600,
}
"""A request that fits into the capacity once, not twice."""
COST = 19
"""What the provider says that it used."""


@pytest.fixture
def guard() -> Guard:
    """A guard with one daily limit for each user, at a time that stands still."""
    return Guard(limits=[f"{CAPACITY} tokens/day"], clock=FakeClock())


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """A provider whose answers all cost the same."""
    with FakeProvider(Reply(input_tokens=12, output_tokens=7)) as provider:
        yield provider


def spent(guard: Guard, user: str = "ann") -> float:
    """What was drawn from a user's bucket, once no reservation is open (an errand may be in
    another thread's hands).
    """
    while guard.backend.open_reservations:
        guard.run_errands()
    return CAPACITY - guard.peek(user=user)[0].left


def ask(guard: Guard, provider: FakeProvider, user: str | None = None, **changes: Any) -> Any:
    """One request of a guarded client that does not retry."""
    with openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0) as plain:
        client = guard.wrap(plain, user=user)
        return client.chat.completions.create(**INNER | changes)


# -- a hold alone -------------------------------------------------------------------------------


def test_it_reserves_and_settles(guard: Guard) -> None:
    """While the block runs its estimate is held, afterwards what it recorded is charged."""
    with guard.hold(user="ann", input_tokens=100, output_tokens=200) as lease:
        assert (guard.peek(user="ann")[0].left, guard.peek(user="ann")[0].held) == (700, 300)
        assert lease.left == {"1k tokens/day": 700.0}
        lease.record(input_tokens=10)
        lease.record(Usage(0, 1, 2))
        lease.record({"usage": {"prompt_tokens": 5, "completion_tokens": 6}})
    assert spent(guard) == 24
    assert lease.used == Usage(1, 16, 8)
    assert not lease.is_open


def test_it_awaits_too(guard: Guard) -> None:
    """``ahold`` and ``apeek`` in a task; one whose task is cancelled keeps its input charged."""

    async def main() -> None:
        async with guard.ahold(user="ann", input_tokens=100, output_tokens=200) as lease:
            assert (await guard.apeek(user="ann"))[0].held == 300
            lease.record(input_tokens=1, output_tokens=2)
        assert (await guard.apeek(user="ann"))[0].left == 997
        entered = asyncio.Event()

        async def endless() -> None:
            async with guard.ahold(user="ann", input_tokens=100, output_tokens=200):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(endless())
        await entered.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await guard.apeek(user="ann"))[0].left == 897

    asyncio.run(main())


def test_silence_is_charged_as_reserved(guard: Guard) -> None:
    """A block that records nothing pays its estimate; a guess pays what the bucket could hold."""
    with guard.hold(user="ann", input_tokens=100, output_tokens=200):
        pass
    assert spent(guard) == 300
    with guard.hold(user="ben", input_tokens=900):
        pass
    assert spent(guard, "ben") == CAPACITY


@pytest.mark.parametrize("error", [OSError("away"), KeyboardInterrupt(), GeneratorExit()])
def test_a_failed_block_pays_its_input(guard: Guard, error: BaseException) -> None:
    """Whatever it fails with, unless it recorded what it used."""
    with (
        pytest.raises(type(error)),
        guard.hold(user="ann", input_tokens=100, output_tokens=200),
    ):
        raise error
    assert spent(guard) == 100

    def block() -> None:
        with guard.hold(user="ann", input_tokens=100, output_tokens=200) as lease:
            lease.record(output_tokens=1)
            raise error

    with pytest.raises(type(error)):
        block()
    assert spent(guard) == 101


def test_wrong_counts_are_refused(guard: Guard) -> None:
    """Negative counts and what has no usage are errors that charge nothing by themselves."""
    for wrong in ({"input_tokens": -1}, {"output_tokens": 1.5}, {"input_tokens": True}):
        counts: Any = wrong
        with pytest.raises(ConfigurationError, match="is a number of tokens >= 0, not"):
            guard.hold(user="ann", **counts)
    with guard.hold(user="ann", input_tokens=100, output_tokens=200) as lease:
        with pytest.raises(ConfigurationError, match="counts are >= 0"):
            lease.record(output_tokens=-1)
        with pytest.raises(ConfigurationError, match="no usage can be read from str"):
            lease.record("12 tokens")
    assert spent(guard) == 300


def test_a_block_that_is_refused_never_runs(guard: Guard) -> None:
    """The refusal comes on entering, and leaves no scope behind."""
    with pytest.raises(RequestTooLarge), guard.hold(user="ann", input_tokens=CAPACITY + 1):
        pytest.fail("the block ran")
    assert enclosing(guard) is None
    assert current().user is None
    assert spent(guard) == 0


def test_a_fallback_says_which_model_to_use() -> None:
    """``lease.model`` serves, ``lease.requested`` was asked for, and ``because`` says why not."""
    guard = Guard(
        limits=["10 tokens/day for big", f"{CAPACITY} tokens/day for small"],
        when_exceeded=[Fallback("small")],
        clock=FakeClock(),
    )
    with guard.hold(user="ann", model="big", input_tokens=100, output_tokens=0) as lease:
        assert (lease.requested, lease.model) == ("big", "small")
        assert lease.because == "10 tokens/day for big"
    assert [state.left for state in guard.peek(user="ann", model="small")] == [900]


def test_a_model_may_be_left_out_of_the_tier() -> None:
    """Nothing is reserved for it."""
    guard = Guard(tiers=[Tier("free", ["1k tokens/day"], models=["small*"])], clock=FakeClock())
    with pytest.raises(ModelNotAllowed, match="small"), guard.hold(user="ann", model="big"):
        pytest.fail("the block ran")
    assert spent(guard) == 0


# -- holds inside holds, and guarded clients in them --------------------------------------------


def test_an_inner_hold_draws_from_the_outer(guard: Guard) -> None:
    """What both would need at once fits, since it is reserved and charged once."""
    with (
        guard.hold(user="ann", input_tokens=500, output_tokens=300),
        guard.hold(input_tokens=500, output_tokens=400) as inner,
    ):
        assert enclosing(guard) is inner
        inner.record(input_tokens=40, output_tokens=2)
    assert spent(guard) == 42
    assert enclosing(guard) is None


def test_a_client_in_a_hold_is_charged_once(guard: Guard, provider: FakeProvider) -> None:
    """It acts for the hold's user and draws from its reservation, call after call."""
    with guard.hold(user="ann", input_tokens=500, output_tokens=300):
        for _ in range(2):
            answer = ask(guard, provider)
            assert receipt(answer).identity.user == "ann"
    assert spent(guard) == 2 * COST


def test_a_client_in_a_decorated_function_is_charged_once(
    guard: Guard, provider: FakeProvider
) -> None:
    """Also if the function returns the answer, whose usage is the client's already."""

    @token_limited(guard, user="ann", input_tokens=500, output_tokens=300)
    def limited() -> Any:
        return ask(guard, provider)

    assert limited().usage.total_tokens == COST
    assert spent(guard) == COST


def test_an_async_client_in_a_decorated_generator_is_charged_once(
    guard: Guard, provider: FakeProvider
) -> None:
    """A stream passed on, with its usage in the last chunk."""
    plain = openai.AsyncOpenAI(base_url=provider.openai_url, api_key="test", max_retries=0)

    @token_limited(guard, user="ann", input_tokens=500, output_tokens=300)
    async def ask() -> Any:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        async for chunk in await guard.wrap(plain).chat.completions.create(**INNER, **options):
            yield chunk

    async def main() -> list[Any]:
        chunks = [chunk async for chunk in ask()]
        await plain.close()
        return chunks

    assert asyncio.run(main())[-1].usage.total_tokens == COST
    assert spent(guard) == COST


def test_a_refused_call_leaves_the_hold_as_it_was(guard: Guard, provider: FakeProvider) -> None:
    """The outer reservation still holds all of it, and the provider was not asked."""
    with guard.hold(user="ann", input_tokens=500, output_tokens=300) as lease:
        with pytest.raises(QuotaExceeded):
            ask(guard, provider, max_tokens=5000)
        assert (guard.peek(user="ann")[0].left, guard.peek(user="ann")[0].held) == (200, 800)
        assert lease.is_open
    assert provider.requests == []
    assert spent(guard) == 800


def test_what_is_recorded_beside_a_client_is_charged_too(
    guard: Guard, provider: FakeProvider
) -> None:
    """The record is of something else: the client's call is not to be recorded."""
    with guard.hold(user="ann", input_tokens=500, output_tokens=300) as lease:
        ask(guard, provider)
        lease.record(input_tokens=100)
    assert spent(guard) == COST + 100


def test_a_failure_after_a_call_charges_the_call_only(guard: Guard, provider: FakeProvider) -> None:
    """The input that a failed block keeps charged is what the client sent."""

    def block() -> None:
        with guard.hold(user="ann", input_tokens=500, output_tokens=300):
            ask(guard, provider)
            raise OSError("away")

    with pytest.raises(OSError, match="away"):
        block()
    assert spent(guard) == COST


def test_two_guards_both_charge(guard: Guard, provider: FakeProvider) -> None:
    """Each for itself: the client's does not stand for the hold's; the user is the hold's."""
    other = Guard(limits=[f"{CAPACITY} tokens/day"], clock=FakeClock())
    with guard.hold(user="ann", input_tokens=500, output_tokens=300):
        ask(other, provider)
    assert spent(other) == COST
    assert spent(guard) == 800

    @token_limited(guard, user="ben", input_tokens=500, output_tokens=300)
    def limited() -> Any:
        return ask(other, provider)

    limited()
    assert (spent(other, "ben"), spent(guard, "ben")) == (COST, COST)


def test_another_user_inside_draws_from_its_own(guard: Guard, provider: FakeProvider) -> None:
    """`acting_as` goes before the hold's user; the hold stays reserved meanwhile, and pays
    nothing, as the client was charged.
    """
    with guard.hold(user="ann", input_tokens=500, output_tokens=300):
        with acting_as("ben"):
            ask(guard, provider, user="carl")
        assert guard.peek(user="ann")[0].held == 800
    assert (spent(guard), spent(guard, "ben"), spent(guard, "carl")) == (0, COST, 0)


def test_who_acts_goes_before_whom_the_hold_names(guard: Guard) -> None:
    """As for clients."""
    with acting_as("ben"), guard.hold(user="ann", input_tokens=5, output_tokens=0) as lease:
        assert lease.identity.user == "ben"
    assert (spent(guard), spent(guard, "ben")) == (0, 5)
