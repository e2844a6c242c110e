"""``quotaguard.patch``: clients that nobody handed to us are metered, and then are not any more."""

from __future__ import annotations

from typing import Any

import openai
import pytest

import quotaguard
from quotaguard import Fallback, Guard, Tier, acting_as, patch, receipt
from quotaguard.testing import FakeProvider, Reply
from tests.clients import clients, surfaces
from tests.clients.clients import PLAIN_ANTHROPIC, PLAIN_OPENAI, Kind
from tests.clients.kit import entered, got, new_guard, reach, reported, run, spent
from tests.clients.surfaces import Surface, called, lines, with_prefix

CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi."}]}
KINDS = [kind for kind in (*clients.OPENAI, *clients.ANTHROPIC) if kind.wrapped]
OF = {"OpenAI": surfaces.OPENAI, "Anthropic": surfaces.ANTHROPIC}
MAIN = ("chat.completions.create", "responses.create", "messages.create", "beta.messages.create")
MATRIX = [
    (kind, surface)
    for kind in KINDS
    for surface in (surfaces.OPENAI if kind in clients.OPENAI else surfaces.ANTHROPIC)
    if kind.name in OF or surface.path in MAIN
]


def plain(kind: Kind, way: str, provider: FakeProvider, **more: Any) -> Any:
    """A client of that kind that nobody guarded."""
    return kind.classes[way](**{"max_retries": 0, **kind.settings(provider), **more})


OPENAI = next(kind for kind in KINDS if kind.name == "OpenAI")
ANTHROPIC = next(kind for kind in KINDS if kind.name == "Anthropic")
each_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


def first(kind: Kind) -> Surface:
    """The plainest call of a client of that kind."""
    return (surfaces.OPENAI if kind in clients.OPENAI else surfaces.ANTHROPIC)[0]


@pytest.mark.parametrize(("kind", "surface"), MATRIX, ids=str)
def test_every_client_is_charged_what_was_reported(
    way: str, kind: Kind, surface: Surface, provider: FakeProvider, guard: Guard
) -> None:
    """Whatever client, whichever surface: as a guarded client, with a receipt, nothing open."""

    async def scenario() -> None:
        client = plain(kind, way, provider)
        with patch(guard=guard):
            answer = await called(client, surface)
        assert spent(guard) == reported(provider)
        assert guard.backend.open_reservations == 0
        assert receipt(answer).requested_model == surface.arguments["model"]
        await got(client.close())

    run(scenario())


@each_kind
def test_clients_made_before_and_after(
    way: str, kind: Kind, provider: FakeProvider, guard: Guard
) -> None:
    """Both are metered while it is on, neither afterwards; nothing of them looks different."""
    surface = first(kind)

    async def scenario() -> None:
        old = plain(kind, way, provider)
        holder = reach(old, surface.path.rpartition(".")[0])
        with patch(guard=guard):
            new = plain(kind, way, provider)
            copy = old.with_options(timeout=3)
            for client in (old, new, copy):
                assert type(client) is kind.classes[way]
                await called(client, surface)
            await got(holder.create(**surface.arguments))
            assert not any("quotaguard" in key for key in vars(old))
            assert holder._client is old
            assert spent(guard) == reported(provider, requests=4)
        before = spent(guard)
        for client in (old, new):
            with pytest.raises(LookupError):
                receipt(await called(client, surface))
        assert spent(guard) == before
        agents = {seen.headers["user-agent"] for seen in provider.requests}
        assert len(agents) == 1
        for client in (old, new, copy):
            await got(client.close())

    run(scenario())


@each_kind
def test_every_attempt_is_counted(
    way: str, kind: Kind, provider: FakeProvider, guard: Guard
) -> None:
    """The SDK's own retries are requests, also where a cloud's client signs each of them."""
    provider.enqueue(Reply(status=500, headers={"retry-after-ms": "1"}))

    async def scenario() -> None:
        client = plain(kind, way, provider, max_retries=1)
        with patch(guard=guard):
            await called(client, first(kind))
        await got(client.close())

    run(scenario())
    assert len(provider.requests) == 2
    assert spent(guard) == reported(provider, requests=2)


@pytest.mark.parametrize("kind", [PLAIN_OPENAI, PLAIN_ANTHROPIC], ids=str)
def test_guarded_clients_are_metered_once(way: str, kind: Kind, provider: FakeProvider) -> None:
    """Their own guard is the one that counts, for copies and wrapped clients too."""
    own, patched = new_guard(), new_guard()

    async def scenario() -> None:
        client = kind.make(way, provider, own)
        unguarded = plain(ANTHROPIC if kind is PLAIN_ANTHROPIC else OPENAI, way, provider)
        with patch(guard=patched):
            made = kind.make(way, provider, own)
            wrapped = own.wrap(unguarded)
            copy = client.with_options(timeout=3)
            for each in (client, made, copy, wrapped):
                await called(each, first(OPENAI if kind is PLAIN_OPENAI else ANTHROPIC))
        for each in (client, made, copy, unguarded):
            await got(each.close())

    run(scenario())
    assert spent(own) == reported(provider, requests=4)
    assert spent(patched) == (0, 0, 0, 0)


def test_whose_calls_they_are(provider: FakeProvider) -> None:
    """A name, a callable asked at each call, and `acting_as` before both."""
    guard = Guard(limits=["1k requests/day"])
    who = iter(["carol", "dave"])
    client = openai.OpenAI(base_url=provider.openai_url, api_key="test")
    with patch(guard=guard, user="alice"):
        client.chat.completions.create(**CHAT)
        with acting_as("bob"):
            client.chat.completions.create(**CHAT)
    with patch(guard=guard, user=lambda: next(who)):
        client.chat.completions.create(**CHAT)
        client.chat.completions.create(**CHAT)
    for user in ("alice", "bob", "carol", "dave"):
        (state,) = guard.peek(user=user)
        assert state.left == 999
    client.close()


def test_refusals_and_fallbacks(provider: FakeProvider) -> None:
    """All that a guarded client does: the SDK's own errors, and another model in time."""
    small = Tier(
        "small",
        limits=["0 tokens/day for gpt-4o", "1k requests/day"],
        when_exceeded=[Fallback("gpt-4o-mini")],
    )
    client = openai.OpenAI(base_url=provider.openai_url, api_key="test")
    with patch(guard=Guard(tiers=[small]), user="alice", tier="small"):
        answer = client.chat.completions.create(**{**CHAT, "model": "gpt-4o"})
        assert receipt(answer).served_model == "gpt-4o-mini"
    with patch(limits=["0 tokens/day"]), pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(**CHAT)
    assert isinstance(refused.value, quotaguard.QuotaExceeded)
    assert len(provider.requests) == 1
    client.close()


def test_the_modules_own_client(
    provider: FakeProvider, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``openai.chat.completions`` has a client that no caller can replace."""
    monkeypatch.setattr(openai, "api_key", "test")
    monkeypatch.setattr(openai, "base_url", provider.openai_url + "/")
    monkeypatch.setattr(openai, "_client", None)
    with patch(guard=guard):
        openai.chat.completions.create(**CHAT)
    assert spent(guard) == reported(provider)
    openai._client.close()


def test_a_streams_end_comes_after_the_undo(way: str, provider: FakeProvider, guard: Guard) -> None:
    """What was admitted is settled, whatever became of the patch; raw responses as well."""

    async def scenario() -> None:
        client = plain(OPENAI, way, provider)
        surface = surfaces.OPENAI[1]
        handle = patch(guard=guard)
        call = reach(client, with_prefix(surface, "with_streaming_response"))
        async with entered(call(**surface.arguments)) as response:
            handle.undo()
            await lines(response)
        assert spent(guard) == reported(provider)
        assert guard.backend.open_reservations == 0
        await got(client.close())

    run(scenario())


def test_state_is_the_clients(provider: FakeProvider, guard: Guard) -> None:
    """What is set on a client, or what it sets itself, is where the next call finds it."""

    class Learning(openai.OpenAI):
        def _prepare_options(self, options: Any) -> Any:
            self.calls = getattr(self, "calls", 0) + 1
            return super()._prepare_options(options)

    client = Learning(base_url="http://localhost:1", api_key="test")
    with patch(guard=guard):
        client.base_url = provider.openai_url  # type: ignore[assignment]  # the setter takes text
        client.chat.completions.create(**CHAT)
        client.chat.completions.create(**CHAT)
    assert client.calls == 2
    assert spent(guard) == reported(provider, requests=2)
    client.close()
