"""A guarded client in the place of the SDK's own: what the SDKs' tests look at is the same."""

from __future__ import annotations

import copy
import gc
import inspect
import json
import pickle
import weakref
from importlib import import_module
from typing import Any

import openai
import pytest
from pydantic import ValidationError

import quotaguard
from quotaguard import Guard
from quotaguard.testing import FakeProvider, Reply
from tests.clients.kit import got, new_guard, reported, run, spent
from tests.clients.twins import both, each_class, state


@each_class
def test_signatures(plain: Any, guarded: Any, settings: Any) -> None:
    """The SDKs' tests compare the constructor's arguments with those of ``copy``."""
    client = guarded(**settings, guard=new_guard())
    for name in ("__init__", "copy", "with_options"):
        ours, theirs = getattr(guarded, name), getattr(plain, name)
        assert inspect.signature(ours) == inspect.signature(theirs)
        assert ours.__doc__ == theirs.__doc__
        assert ours.__name__ == theirs.__name__
    constructed = inspect.signature(client.__init__).parameters
    copied = inspect.signature(client.copy).parameters
    exempt = set(inspect.signature(plain.__init__).parameters) - set(
        inspect.signature(plain.copy).parameters
    )
    assert set(constructed) - set(copied) <= exempt
    assert guarded.copy is guarded.with_options
    run(got(client.close()))


@each_class
def test_it_is_a_client_of_the_sdk(plain: Any, guarded: Any, settings: Any) -> None:
    """``isinstance``, ``repr`` and the rest say so."""
    theirs, ours = both(plain, guarded, **settings)
    assert isinstance(ours, plain)
    assert repr(ours).startswith(f"<quotaguard.clients.{plain.__module__.partition('.')[0]}.")
    assert ours.user_agent == theirs.user_agent
    assert state(ours) == state(theirs)
    assert {name for name in dir(ours) if "quotaguard" not in name} >= set(dir(theirs))
    assert set(vars(ours)) - set(vars(theirs)) == {"_quotaguard"}
    for client in (ours, theirs):
        run(got(client.close()))


@each_class
def test_resources_belong_to_the_guarded_client(plain: Any, guarded: Any, settings: Any) -> None:
    """No resource, however it was reached, holds a client that is not metered."""
    client = guarded(**settings, guard=new_guard())
    copied = client.with_options(max_retries=1)
    for each in (client, copied):
        holder = each.messages if plain.__name__.endswith("Anthropic") else each.chat.completions
        assert holder._client is each
        assert each.beta._client is each
        raw = each.with_raw_response
        raw_holder = raw.messages if plain.__name__.endswith("Anthropic") else raw.chat
        inner = getattr(raw_holder, "_messages", None) or raw_holder._chat
        assert inner._client is each
    run(got(client.close()))


@each_class
def test_nothing_keeps_the_plain_client(
    plain: Any, guarded: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK's own class stands in for a moment; whoever kept it would not be metered."""
    kept: list[weakref.ref[Any]] = []
    seam = import_module("quotaguard.clients.seam")
    make = seam._plain

    def remember(client: Any, base: type) -> Any:
        found = make(client, base)
        kept.append(weakref.ref(found))
        return found

    monkeypatch.setattr(seam, "_plain", remember)
    client = guarded(**settings, guard=new_guard())
    client.with_options(timeout=3)
    gc.collect()
    assert len(kept) == 2
    assert [ref() for ref in kept] == [None, None]
    run(got(client.close()))


@each_class
def test_context_managers_and_closing(plain: Any, guarded: Any, settings: Any) -> None:
    """``with``, ``close`` and ``is_closed`` are the SDK's."""
    client = guarded(**settings, guard=new_guard())

    async def scenario() -> None:
        if hasattr(client, "__aenter__"):
            async with client as entered:
                assert entered is client
                assert not client.is_closed()
        else:
            with client as entered:
                assert entered is client
                assert not client.is_closed()
        assert client.is_closed()
        await got(client.close())

    run(scenario())


@each_class
def test_a_forgotten_client_goes_away(plain: Any, guarded: Any, settings: Any) -> None:
    """Nothing of ours keeps a client alive."""
    client = guarded(**settings, guard=new_guard())
    run(got(client.close()))
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None


# The SDKs' HTTP clients have a finalizer that cannot bear a copy that was begun and refused.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("way_of_copying", [copy.copy, copy.deepcopy, pickle.dumps])
@each_class
def test_copying_by_other_means(
    plain: Any, guarded: Any, settings: Any, way_of_copying: Any
) -> None:
    """``copy``, ``deepcopy`` and ``pickle`` work, or refuse, as for the plain class."""

    def outcome(client: Any) -> Any:
        try:
            way_of_copying(client)
        except Exception as error:  # noqa: BLE001 -- whatever the plain class raises
            return type(error)
        return "works"

    theirs, ours = both(plain, guarded, **settings)
    assert outcome(ours) == outcome(theirs)
    for client in (ours, theirs):
        run(got(client.close()))


def test_a_shallow_copy_stays_guarded(provider: FakeProvider, guard: Guard) -> None:
    """``copy.copy`` gives a client that is metered as well."""
    client = quotaguard.GuardedOpenAI(guard=guard, api_key="test", base_url=provider.openai_url)
    copy.copy(client).chat.completions.create(model="gpt-4o", messages=[])
    assert spent(guard) == reported(provider)
    client.close()


class Required(quotaguard.GuardedOpenAI):
    """A user's subclass with state, and an override of what the SDK calls."""

    def __init__(self, house: str = "blue", **more: Any) -> None:
        super().__init__(**more)
        self.house = house

    def copy(self, **options: Any) -> Any:
        """The state comes along by the SDK's own door."""
        return super().copy(_extra_kwargs={"house": self.house}, **options)

    with_options = copy


def test_a_subclass_of_the_guarded_class(provider: FakeProvider, guard: Guard) -> None:
    """Users subclass our classes as they do the SDK's: state, copy and metering hold."""
    client = Required("red", guard=guard, api_key="test", base_url=provider.openai_url)
    copied = client.with_options(timeout=3)
    assert (type(copied), copied.house) == (Required, "red")
    assert copied._quotaguard.guard is guard
    assert client.user_agent.startswith("Required/Python ")
    copied.chat.completions.create(model="gpt-4o", messages=[])
    assert spent(guard) == reported(provider)
    client.close()


def test_strict_response_validation(way: str, provider: FakeProvider, guard: Guard) -> None:
    """The SDK's own check of answers goes on, and what was used is charged all the same."""
    usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    body = {"id": 3, "choices": "none", "usage": usage}
    provider.enqueue(Reply(body=json.dumps(body).encode()))
    cls = quotaguard.GuardedOpenAI if way == "sync" else quotaguard.AsyncGuardedOpenAI

    async def scenario() -> None:
        client = cls(
            guard=guard,
            api_key="test",
            base_url=provider.openai_url,
            _strict_response_validation=True,
        )
        with pytest.raises((openai.APIResponseValidationError, ValidationError)):
            await got(client.chat.completions.create(model="gpt-4o", messages=[]))
        await got(client.close())

    run(scenario())
    assert spent(guard) == (11, 5, 6, 1)
    assert guard.backend.open_reservations == 0
