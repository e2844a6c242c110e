"""Who is acting: blocks, what they say together, and where they reach."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotaguard import ConfigurationError, Guard, Identity, acting_as
from quotaguard.identity import NOBODY, current, enclosed, name

names = st.none() | st.sampled_from(["alice", "bob", "carol"])
identities = st.builds(Identity, names, names, names)


def test_outside_of_blocks_nobody_acts() -> None:
    """Nothing is said until somebody says it."""
    assert current() == NOBODY == Identity(None, None, None)


def test_a_block_acts_and_ends() -> None:
    """Also when it ends by an error; it hands out who acts."""
    with suppress(KeyError), acting_as("alice", org="acme", tier="pro") as identity:
        assert identity == current() == Identity("alice", "acme", "pro")
        raise KeyError
    assert current() == NOBODY


def test_blocks_nest() -> None:
    """What the inner one leaves out stays as it is outside."""
    with acting_as("alice", org="acme"):
        with acting_as("bob", tier="pro") as inner:
            assert inner == Identity("bob", "acme", "pro")
            with acting_as(org="zeta"):
                assert current() == Identity("bob", "zeta", "pro")
            with acting_as() as same:
                assert same == inner
        assert current() == Identity("alice", "acme", None)


@given(identities, identities, identities)
def test_merging(one: Identity, two: Identity, three: Identity) -> None:
    """Each part is the first that is said; how the blocks are grouped does not matter."""
    for mine, theirs, merged in zip(one, two, one.over(two), strict=True):
        assert merged == (theirs if mine is None else mine)
    assert one.over(two).over(three) == one.over(two.over(three))
    assert one.over(NOBODY) == NOBODY.over(one) == one.over(one) == one


@given(st.lists(identities, max_size=6))
def test_nested_blocks_merge(stack: list[Identity]) -> None:
    """Blocks inside blocks say what merging them says, and all of it is taken back."""
    expected = NOBODY
    blocks = []
    for identity in stack:
        block = acting_as(identity.user, org=identity.org, tier=identity.tier)
        expected = identity.over(expected)
        assert block.__enter__() == expected
        blocks.append(block)
    for block in reversed(blocks):
        block.__exit__(None, None, None)
    assert current() == NOBODY


def test_a_block_can_be_used_again() -> None:
    """One after the other and inside itself."""
    alice = acting_as("alice")
    for _ in range(2):
        with alice, acting_as("bob"), alice as again:
            assert again.user == "alice"
        assert current() == NOBODY


def test_one_block_in_many_threads() -> None:
    """Each thread leaves what it entered, in whatever order they leave."""
    shared = acting_as("alice")
    inside = threading.Barrier(4)

    def act(number: int) -> tuple[Identity, Identity]:
        with acting_as(org=f"org-{number}"):
            with acting_as("alice"), acting_as(tier="pro"):
                inside.wait(10)
                within = current()
            return within, current()

    with shared, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(act, range(4)))
    for number, (within, after) in enumerate(found):
        assert within == Identity("alice", f"org-{number}", "pro")
        assert after == Identity(None, f"org-{number}", None)


def test_a_new_thread_starts_with_nobody_or_with_a_copy() -> None:
    """Threads have a context of their own, unless they are given a copy."""
    found: list[Identity] = []
    with acting_as("alice"):
        context = contextvars.copy_context()
        threads = [
            threading.Thread(target=lambda: found.append(current()), name="own"),
            threading.Thread(target=lambda: found.append(context.run(current)), name="copy"),
        ]
        for thread in threads:
            # Free-threaded builds of Python may let threads inherit the context.
            contextvars.Context().run(thread.start)
            thread.join()
    assert found == [NOBODY, Identity("alice")]


@pytest.mark.anyio
async def test_tasks_act_for_those_who_started_them() -> None:
    """A task keeps its identity after the block has ended, and changes nobody else's."""
    ended = asyncio.Event()

    async def act(org: str) -> tuple[Identity, Identity]:
        before = current()
        with acting_as(org=org):
            await ended.wait()
            return before, current()

    with acting_as("alice"):
        tasks = [asyncio.create_task(act(f"org-{number}")) for number in range(3)]
    assert current() == NOBODY
    ended.set()
    found = await asyncio.gather(*tasks)
    assert found == [(Identity("alice"), Identity("alice", f"org-{n}")) for n in range(3)]


@pytest.mark.anyio
async def test_to_thread_acts_for_its_caller() -> None:
    """``asyncio.to_thread`` takes the context along."""
    with acting_as("alice", tier="pro"):
        assert await asyncio.to_thread(current) == Identity("alice", None, "pro")
    assert await asyncio.to_thread(current) == NOBODY


@pytest.mark.parametrize("value", ["", 5, b"alice", False, ["alice"], lambda: "", lambda: 5])
@pytest.mark.parametrize("what", ["user", "org", "tier"])
def test_names_are_strings(what: str, value: Any) -> None:
    """An empty name would be a bucket that everybody unnamed shares; the error says which."""
    with pytest.raises(ConfigurationError, match=f"{what} is a non-empty string or None, not "):
        acting_as(**{what: value})
    assert current() == NOBODY


def test_names_are_called_for() -> None:
    """A callable is asked each time; None says nothing."""
    users = iter(["alice", "bob", None])
    assert [name(lambda: next(users), "user") for _ in range(3)] == ["alice", "bob", None]
    assert name(None, "user") is None
    with acting_as(lambda: "alice") as identity:
        assert identity.user == "alice"


def test_what_fails_inside_a_callable_comes_out() -> None:
    """No identity is made up where finding it failed."""

    def fails() -> str:
        raise LookupError("no session")

    with pytest.raises(LookupError, match="no session"):
        name(fails, "user")


def test_the_block_goes_before_what_the_call_says() -> None:
    """The bucket drawn from is the acting user's."""
    guard = Guard(limits=["10 requests/day"])
    with acting_as("alice"):
        with guard.hold(user="bob", org="acme") as lease:
            assert lease.identity == Identity("alice", "acme", "default")
        assert guard.peek(org="acme")[0].left == pytest.approx(9)
    assert guard.peek(user="bob", org="acme")[0].left == pytest.approx(10)


def test_a_missing_user_is_an_error() -> None:
    """Limits per user need one; the error says the ways to name one."""
    with pytest.raises(ConfigurationError, match=r"no user: .*acting_as.*anonymous='anonymous'"):
        Guard(limits=["10 requests/day"]).peek()


def test_one_object_serves_many_at_once() -> None:
    """Tasks and threads that enter the same object at the same time do not get in each other's way,
    and who nests it in itself gets out again.
    """
    shared = acting_as("alice", org="acme")

    async def task(gate: asyncio.Event, user: str) -> Identity:
        with acting_as(user), shared:
            await gate.wait()
            inside = current()
        assert current() == NOBODY
        return inside

    async def main() -> list[Identity]:
        gate = asyncio.Event()
        tasks = [asyncio.create_task(task(gate, user)) for user in ("bob", "carol", "dora")]
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == [Identity("alice", "acme")] * 3
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(lambda _: asyncio.run(main()), range(4))
    assert all(each == [Identity("alice", "acme")] * 3 for each in found)
    with shared, acting_as("bob"), shared:
        assert current() == Identity("alice", "acme")
    assert current() == NOBODY


def test_leaving_a_block_elsewhere_takes_nothing_away() -> None:
    """A context in which the block was not entered keeps what it says."""
    block = acting_as("alice")
    contextvars.copy_context().run(block.__enter__)
    with acting_as("bob"):
        block.__exit__(None, None, None)
        assert current() == Identity("bob")


def test_a_block_that_ends_inside_another_ends_alone() -> None:
    """Whoever consumes a generator goes on acting for whom it said when the generator ends."""

    def generator() -> Iterator[Identity]:
        with acting_as("alice", org="acme"):
            yield current()

    one = generator()
    assert next(one) == Identity("alice", "acme")
    with acting_as("bob"):
        assert current() == Identity("bob", "acme")
        one.close()
        assert current() == Identity("bob")
    assert current() == NOBODY


def test_what_is_never_left_ends_with_what_encloses_it() -> None:
    """A request acts for who turned out to call; the next one on this thread does not."""
    with acting_as("alice"):
        with enclosed():
            acting_as("bob").__enter__()
            assert current() == Identity("bob")
        assert current() == Identity("alice")
