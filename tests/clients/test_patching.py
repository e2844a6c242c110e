"""`quotaguard.patch` beside others who replace ``request``, twice, in a race; and its undoing."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import anthropic
import openai
import pytest

import quotaguard
from quotaguard import ConfigurationError, Guard, patch, receipt
from quotaguard.testing import FakeProvider
from quotaguard.testing.provider.record import Seen
from tests.clients.clients import PLAIN_OPENAI
from tests.clients.kit import got, new_guard, reach, reported, run, spent

CHAT: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi."}]}
PLAIN = {"sync": openai.OpenAI, "async": openai.AsyncOpenAI}


def requests() -> list[Any]:
    """What the base classes of both SDKs have as ``request``."""
    bases = (openai._base_client, anthropic._base_client)
    names = ("SyncAPIClient", "AsyncAPIClient")
    return [vars(getattr(base, name))["request"] for base in bases for name in names]


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = requests()
    yield
    assert requests() == before


@pytest.mark.parametrize("when", ["before", "after"])
def test_classes_with_a_request_of_their_own(
    when: str, way: str, provider: FakeProvider, guard: Guard
) -> None:
    """A user's class may override ``request``: it runs once, and is metered once."""
    base: Any = PLAIN[way]
    heard: list[str] = []

    def mine() -> Any:
        class Mine(base):
            def request(self, *args: Any, **kwargs: Any) -> Any:
                heard.append("request")
                return super().request(*args, **kwargs)

        return Mine

    async def scenario() -> None:
        classes = [mine()] if when == "before" else []
        with patch(guard=guard):
            client = (classes or [mine()])[0](base_url=provider.openai_url, api_key="test")
            await got(client.chat.completions.create(**CHAT))
        await got(client.close())

    run(scenario())
    assert heard == ["request"]
    assert spent(guard) == reported(provider)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("where", ["class", "instance"])
def test_others_replace_request_too(
    when: str, where: str, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instrumentation does: both see each call once. Only what was instrumented itself, a client
    and not its class, before `patch` goes past it: its ``request`` is bound to the old one.
    """
    guard, heard = new_guard(), []
    client = openai.OpenAI(base_url=provider.openai_url, api_key="test")

    def instrument() -> None:
        owner: Any = openai.OpenAI if where == "class" else client
        before = owner.request

        def request(*args: Any, **kwargs: Any) -> Any:
            heard.append("request")
            return before(*args, **kwargs)

        monkeypatch.setattr(owner, "request", request, raising=False)

    if when == "before":
        instrument()
    with patch(guard=guard):
        if when == "after":
            instrument()
        client.chat.completions.create(**CHAT)
    assert heard == ["request"]
    past = (when, where) == ("before", "instance")
    assert spent(guard) == ((0, 0, 0, 0) if past else reported(provider))
    now = spent(guard)
    client.chat.completions.create(**CHAT)
    assert heard == ["request"] * 2
    assert spent(guard) == now
    client.close()


def test_strict_patches_open_no_socket(way: str, provider: FakeProvider) -> None:
    """No client opens one while it is on, but for those with a lenient guard of their own."""
    client = PLAIN[way](base_url=provider.openai_url, api_key="test")
    own = PLAIN_OPENAI.make(way, provider, new_guard())
    where = "realtime" if hasattr(client, "realtime") else "beta.realtime"
    with patch(guard=new_guard(strict=True)):
        with pytest.raises(quotaguard.UnmeteredEndpoint, match="web socket"):
            reach(client, where).connect(model="gpt-realtime")
        assert reach(own, where).connect(model="gpt-realtime") is not None
    assert reach(client, where).connect(model="gpt-realtime") is not None
    run(got(client.close()))
    run(got(own.close()))


def test_patching_twice_is_an_error(guard: Guard) -> None:
    """Which guard would count? Undo, which may be done twice, and then again."""
    with patch(guard=guard) as handle:
        with pytest.raises(ConfigurationError, match=r"already: undo\(\)"):
            patch(guard=guard)
        assert repr(handle) == "<quotaguard patch, on>"
    handle.undo()
    assert repr(handle) == "<quotaguard patch, undone>"
    again = patch(guard=guard)
    handle.undo()
    with pytest.raises(ConfigurationError, match="already"):
        patch(guard=guard)
    again.undo()


def test_a_crowd_patches_once(guard: Guard) -> None:
    """However many threads race, one gets the handle, and its undo is complete."""
    handles: list[Any] = []
    gate = threading.Barrier(8)

    def race() -> None:
        gate.wait()
        try:
            handles.append(patch(guard=guard))
        except ConfigurationError:
            handles.append(None)

    crowd = [threading.Thread(target=race) for _ in range(8)]
    for each in crowd:
        each.start()
    for each in crowd:
        each.join()
    (handle,) = filter(None, handles)
    assert len(handles) == 8
    handle.undo()


def test_calls_race_with_patch_and_undo(provider: FakeProvider) -> None:
    """Every call passes, whole: metered, or not at all."""
    guard = new_guard()
    client = openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=0)
    stop = threading.Event()
    metered: list[bool] = []

    def reached(wanted: int, seen: list[Seen]) -> bool:
        return len(seen) > wanted

    def call() -> None:
        while not stop.is_set():
            answer = client.chat.completions.create(**CHAT)
            try:
                metered.append(receipt(answer).settled)
            except LookupError:
                metered.append(False)

    crowd = [threading.Thread(target=call) for _ in range(3)]
    for each in crowd:
        each.start()
    while not (any(metered) and len(metered) > 30):
        wanted = len(provider.requests) + 5
        with patch(guard=guard):
            provider.wait_until(partial(reached, wanted))
    stop.set()
    for each in crowd:
        each.join()
    assert spent(guard).requests == sum(metered)
    assert guard.backend.open_reservations == 0
    client.close()


def test_request_still_looks_like_the_sdks(guard: Guard) -> None:
    """Its signature, and whether it is to be awaited."""
    before = [inspect.signature(request) for request in requests()]
    with patch(guard=guard):
        assert [inspect.signature(request) for request in requests()] == before
        awaited = [inspect.iscoroutinefunction(request) for request in requests()]
    assert awaited == [False, True, False, True]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"user": 3}, "3"),
        ({"guard": "10k tokens/day"}, "a quotaguard.Guard"),
        ({"guard": Guard(), "limits": ["1 requests/day"]}, "not both"),
    ],
)
def test_mistakes_are_said_at_once(arguments: Any, said: str) -> None:
    """And nothing is patched then."""
    with pytest.raises(ConfigurationError, match=said):
        patch(**arguments)


def test_without_an_sdk_there_is_nothing_to_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said with what to install; one SDK alone is enough."""
    only = "anthropic"
    monkeypatch.setattr(
        "quotaguard.clients.patch.find_spec", lambda name: find_spec(name) if name == only else None
    )
    before = requests()
    with patch():
        assert [a is b for a, b in zip(requests(), before, strict=True)] == [True] * 2 + [False] * 2
    only = ""
    with pytest.raises(ConfigurationError, match="pip install"):
        patch()
