"""Anthropic's credentials and middleware, which the SDK keeps from subclasses."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import anthropic
import pytest

import quotaguard
from quotaguard import Guard, patch
from quotaguard.testing import FakeProvider, Reply
from tests.clients.kit import got, reported, run, spent

ANTHROPICS = [
    pytest.param(quotaguard.GuardedAnthropic, id="sync"),
    pytest.param(quotaguard.AsyncGuardedAnthropic, id="async"),
]


def _token(**_: Any) -> Any:
    return import_module("anthropic.lib.credentials").AccessToken(token="minted")


@pytest.mark.parametrize("cls", ANTHROPICS)
def test_credentials_are_used(cls: Any, provider: FakeProvider, guard: Guard) -> None:
    """A token provider passed to the constructor signs requests, also those of copies."""
    seen: list[Any] = []
    words = [{"role": "user", "content": "three small words"}]

    def mint(**asked: Any) -> Any:
        seen.append(asked)
        return _token()

    async def scenario() -> None:
        client = cls(guard=guard, credentials=mint, base_url=provider.anthropic_url)
        for each in (client, client.with_options(timeout=9)):
            assert each.credentials is mint
            await got(each.messages.create(model="claude", max_tokens=9, messages=words))
        assert client.copy()._token_cache is client._token_cache
        await got(client.close())

    run(scenario())
    assert len(seen) == 1
    assert spent(guard) == reported(provider, requests=2)


@pytest.mark.parametrize("cls", ANTHROPICS)
def test_credentials_of_the_environment(
    cls: Any, guard: Guard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Federation by environment variables is found, on construction and kept on copying."""
    token = tmp_path / "token"
    token.write_text("identity")
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("ANTHROPIC_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("ANTHROPIC_FEDERATION_RULE_ID", "rule")
    monkeypatch.setenv("ANTHROPIC_ORGANIZATION_ID", "organization")
    client = cls(guard=guard)
    assert client.credentials is not None
    assert client.copy().credentials is client.credentials
    run(got(client.close()))


def test_middleware_goes_around_what_is_metered(
    way: str, provider: FakeProvider, guard: Guard
) -> None:
    """It sees each attempt of a guarded call, and what it changes is what is sent."""
    seen: list[Any] = []

    def watch(request: Any, call_next: Any) -> Any:
        seen.append(request)
        return call_next(request)

    async def awatch(request: Any, call_next: Any) -> Any:
        seen.append(request)
        return await call_next(request)

    cls = quotaguard.GuardedAnthropic if way == "sync" else quotaguard.AsyncGuardedAnthropic

    async def scenario() -> None:
        client = cls(guard=guard, api_key="test", base_url=provider.anthropic_url)
        watched = client.with_middleware(watch if way == "sync" else awatch)
        assert type(watched) is cls
        assert watched._quotaguard == client._quotaguard
        words = [{"role": "user", "content": "three small words"}]
        for each in (watched, watched.copy()):
            await got(each.messages.create(model="claude", max_tokens=9, messages=words))
        await got(client.close())

    run(scenario())
    assert len(seen) == 2
    assert spent(guard) == reported(provider, requests=2)


def test_a_patched_client_has_both(way: str, provider: FakeProvider, guard: Guard) -> None:
    """Its token is minted once, its middleware runs once for each attempt, and each is counted."""
    provider.enqueue(Reply(status=500, headers={"retry-after-ms": "1"}))
    seen: list[str] = []
    words: Any = [{"role": "user", "content": "three small words"}]

    def mint(**asked: Any) -> Any:
        seen.append("token")
        return _token()

    def watch(request: Any, call_next: Any) -> Any:
        seen.append("attempt")
        return call_next(request)

    async def awatch(request: Any, call_next: Any) -> Any:
        seen.append("attempt")
        return await call_next(request)

    async def scenario() -> None:
        cls: Any = anthropic.Anthropic if way == "sync" else anthropic.AsyncAnthropic
        client = cls(credentials=mint, base_url=provider.anthropic_url)
        watched = client.with_middleware(watch if way == "sync" else awatch)
        chain = vars(watched)["_middleware_chain"]
        with patch(guard=guard):
            for _ in range(2):
                await got(watched.messages.create(model="claude", max_tokens=9, messages=words))
        assert vars(watched)["_middleware_chain"] is chain
        await got(client.close())

    run(scenario())
    assert sorted(seen) == ["attempt"] * 3 + ["token"]
    assert spent(guard) == reported(provider, requests=3)
