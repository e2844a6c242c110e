"""``Guard.wrap``: the guarded twin of a client that somebody else built."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import openai
import pytest

from quotaguard import ConfigurationError, Guard, acting_as
from quotaguard.testing import FakeProvider
from tests.clients import clients
from tests.clients.clients import Kind
from tests.clients.kit import got, new_guard, reported, run, spent

CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi."}]}
WRAPPED = [kind for kind in (*clients.OPENAI, *clients.ANTHROPIC) if kind.wrapped]


@pytest.mark.parametrize("kind", WRAPPED, ids=str)
def test_the_original_stays_as_it_was(
    way: str, kind: Kind, provider: FakeProvider, guard: Guard
) -> None:
    """Who built the client goes on using it unmetered, resources made before included."""
    plain = kind.classes[way](max_retries=0, **kind.settings(provider))
    holder = plain.messages if hasattr(plain, "messages") else plain.chat
    before = dict(vars(plain))
    twin = guard.wrap(plain, user="alice")
    assert vars(plain) == before
    assert holder._client is plain
    assert (twin.messages if hasattr(twin, "messages") else twin.chat)._client is twin
    assert isinstance(twin, kind.classes[way])
    assert type(twin).__name__ == kind.classes[way].__name__
    assert twin.user_agent == plain.user_agent
    assert twin._client is plain._client
    assert type(twin.copy()) is type(twin)
    assert twin.copy()._quotaguard == twin._quotaguard
    run(got(plain.close()))


def test_what_was_assigned_is_kept(provider: FakeProvider, guard: Guard) -> None:
    """Only what holds the original client is made anew, nothing else that a client carries."""
    plain = openai.OpenAI(base_url=provider.openai_url, api_key="test")
    plain.api_key = "changed"
    plain.note = "mine"  # type: ignore[attr-defined]
    twin = guard.wrap(plain)
    assert twin.api_key == "changed"
    assert twin.note == "mine"  # type: ignore[attr-defined]
    plain.close()


def test_wrapping_twice_charges_once(way: str, provider: FakeProvider, guard: Guard) -> None:
    """The last guard is the one that counts."""
    first = new_guard()
    kind = next(kind for kind in WRAPPED if kind.name == "OpenAI")

    async def scenario() -> None:
        once = kind.make(way, provider, first)
        twice = guard.wrap(once)
        assert type(twice) is type(once)
        await got(twice.chat.completions.create(**CHAT))
        assert spent(first) == (0, 0, 0, 0)
        await got(once.chat.completions.create(**CHAT))
        await got(once.close())

    run(scenario())
    assert spent(guard) == spent(first)
    assert spent(guard).tokens * 2 == reported(provider).tokens


def test_whose_calls_they_are(provider: FakeProvider) -> None:
    """Names, callables asked at each call, and `acting_as` before both."""
    guard = Guard(limits=["1k requests/day"])
    who = iter(["carol", "dave"])
    plain = openai.OpenAI(base_url=provider.openai_url, api_key="test")
    named = guard.wrap(plain, user="alice")
    asked = guard.wrap(plain, user=lambda: next(who))
    named.chat.completions.create(**CHAT)
    asked.chat.completions.create(**CHAT)
    asked.chat.completions.create(**CHAT)
    with acting_as("bob"):
        named.chat.completions.create(**CHAT)
    for user in ("alice", "bob", "carol", "dave"):
        (state,) = guard.peek(user=user)
        assert state.left == 999
    plain.close()


@pytest.mark.parametrize("client", [None, "client", openai, openai.OpenAI])
def test_only_clients_can_be_wrapped(client: object, guard: Guard) -> None:
    """Anything else is a mistake, said at once."""
    with pytest.raises(ConfigurationError, match="a client of the openai or anthropic SDK"):
        guard.wrap(client)


def test_wrapping_loads_no_sdk() -> None:
    """Where an SDK is not loaded there is no client of it."""
    code = (
        "import sys, quotaguard\n"
        "try: quotaguard.Guard().wrap(object())\n"
        "except quotaguard.ConfigurationError: print({'openai', 'anthropic'} & {*sys.modules})"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
