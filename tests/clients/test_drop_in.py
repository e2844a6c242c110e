"""A guarded client in the place of the SDK's own: what the SDKs' tests look at is the same."""

from __future__ import annotations

import copy
import gc
import inspect
import logging
import pickle
import tracemalloc
import weakref
from importlib import import_module
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from pydantic import ValidationError

import quotaguard
from quotaguard import ConfigurationError, Guard, config
from quotaguard.clients.seam import QUOTA_ARGUMENTS
from quotaguard.testing import FakeProvider, Reply, disabled
from tests.clients.kit import WAYS, got, new_guard, reported, run, spent

OPENAI: dict[str, Any] = {"api_key": "test", "base_url": "http://localhost/v1"}
AZURE: dict[str, Any] = {
    "api_key": "test",
    "api_version": "2024-10-21",
    "azure_endpoint": "http://localhost",
}
SDKS = {
    "OpenAI": (openai, OPENAI),
    "AzureOpenAI": (openai, AZURE),
    "Anthropic": (anthropic, OPENAI),
}
CLASSES = [
    pytest.param(
        getattr(sdk, name if way == "sync" else f"Async{name}"),
        getattr(quotaguard, f"Guarded{name}" if way == "sync" else f"AsyncGuarded{name}"),
        settings,
        id=f"{way}-{name}",
    )
    for way in WAYS
    for name, (sdk, settings) in SDKS.items()
]
each_class = pytest.mark.parametrize(("plain", "guarded", "settings"), CLASSES)


def both(plain: Any, guarded: Any, **settings: Any) -> tuple[Any, Any]:
    """The plain client and the guarded one, made alike."""
    return plain(**settings), guarded(**settings, guard=new_guard())


# -- signatures and identity ---------------------------------------------------------------------


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


# -- copies --------------------------------------------------------------------------------------

COPIES: list[dict[str, Any]] = [
    {},
    {"api_key": "another"},
    {"base_url": "http://elsewhere/v2"},
    {"timeout": 3.5},
    {"timeout": None},
    {"max_retries": 7},
    {"default_headers": {"x-one": "1"}},
    {"set_default_headers": {"x-two": "2"}},
    {"default_query": {"one": "1"}},
    {"set_default_query": {"two": "2"}},
]


def state(client: Any) -> dict[str, Any]:
    """What the options of a client amount to."""
    return {
        "headers": {
            name: value if isinstance(value, str) else type(value)
            for name, value in client.default_headers.items()
        },
        "query": client.default_query,
        "url": str(client.base_url),
        "timeout": client.timeout,
        "retries": client.max_retries,
        "key": client.api_key,
        "strict": client._strict_response_validation,
    }


@pytest.mark.parametrize("options", COPIES, ids=str)
@each_class
def test_copies_have_the_same_options(
    plain: Any, guarded: Any, settings: Any, options: Any
) -> None:
    """Each option of ``copy`` does what it does on the plain class, and the guard comes along."""
    more = {"default_headers": {"x-zero": "0"}, "default_query": {"zero": "0"}, "max_retries": 4}
    theirs, ours = both(plain, guarded, **settings, **more)
    copied = ours.copy(**options)
    assert state(copied) == state(theirs.copy(**options))
    assert type(copied) is guarded
    assert copied is not ours
    assert copied._quotaguard == ours._quotaguard
    assert copied._client is ours._client
    for client in (ours, theirs):
        run(got(client.close()))


@each_class
def test_a_copy_may_have_a_client_of_its_own(plain: Any, guarded: Any, settings: Any) -> None:
    """``http_client`` on construction and on copying, as with the plain class."""
    kind = "Client" if "Async" not in plain.__name__ else "AsyncClient"
    client = guarded(**settings, guard=new_guard())
    library = next(
        cls.__module__.partition(".")[0]
        for cls in type(client._client).__mro__
        if cls.__module__.startswith("httpx")
    )
    mine, other = (getattr(import_module(library), kind)() for _ in range(2))
    given = guarded(**settings, guard=new_guard(), http_client=mine)
    assert given._client is mine
    assert given.copy(http_client=other)._client is other
    for each in (client, given, given.copy(http_client=other)):
        run(got(each.close()))
    assert mine.is_closed
    assert other.is_closed


@each_class
def test_options_that_exclude_each_other(plain: Any, guarded: Any, settings: Any) -> None:
    """The SDK's own errors come through."""
    client = guarded(**settings, guard=new_guard())
    with pytest.raises(ValueError, match="mutually exclusive"):
        client.copy(default_headers={}, set_default_headers={"x": "y"})
    with pytest.raises(ValueError, match="mutually exclusive"):
        client.copy(default_query={}, set_default_query={"x": "y"})
    with pytest.raises(TypeError, match="unexpected"):
        client.copy(no_such_option=1)
    with pytest.raises(TypeError, match="unexpected"):
        guarded(**settings, no_such_option=1)
    run(got(client.close()))


@each_class
def test_the_guard_is_an_option_too(plain: Any, guarded: Any, settings: Any) -> None:
    """A copy may act for somebody else, under another guard; what is left out stays."""
    one, two = new_guard(), new_guard()
    client = guarded(**settings, guard=one, user="alice", org="acme")
    other = client.with_options(user="bob")
    assert (other._quotaguard.guard, other._quotaguard.identity()) == (one, ("bob", "acme", None))
    assert client._quotaguard.identity() == ("alice", "acme", None)
    assert client.copy(guard=two)._quotaguard.guard is two
    assert client.copy(limits=["1 request/day"])._quotaguard.guard not in (one, two)
    with pytest.raises(ConfigurationError, match="guard= or limits="):
        client.copy(guard=two, limits=["1 request/day"])
    with pytest.raises(ConfigurationError, match=r"quotaguard\.Guard"):
        guarded(**settings, guard="alice")
    with pytest.raises(ConfigurationError, match="user is a non-empty string"):
        guarded(**settings, guard=one, user="")
    run(got(client.close()))


@each_class
def test_copies_and_requests_do_not_leak(plain: Any, guarded: Any, settings: Any) -> None:
    """The SDKs' tests take the memory before and after; so do we."""
    client = guarded(**settings, guard=new_guard())
    models = import_module(f"{plain.__module__.partition('.')[0]}._models")
    options = models.FinalRequestOptions(method="post", url="/foo", json_data={"model": "m"})

    def build() -> None:
        client.copy()._build_request(options)

    for _ in range(3):
        build()
    gc.collect()
    tracemalloc.start(5)
    try:
        before = tracemalloc.take_snapshot()
        for _ in range(10):
            build()
        gc.collect()
        after = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    grown = [
        each
        for each in after.compare_to(before, "traceback")
        if each.count_diff >= 10 and "quotaguard" in str(each.traceback)
    ]
    assert grown == []
    run(got(client.close()))


# -- lives and deaths ----------------------------------------------------------------------------


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


# -- subclasses ----------------------------------------------------------------------------------


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


# -- answers -------------------------------------------------------------------------------------


def test_strict_response_validation(way: str, provider: FakeProvider, guard: Guard) -> None:
    """The SDK's own check of answers goes on, and what was used is charged all the same."""
    usage = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    body = {"id": 3, "choices": "none", "usage": usage}
    provider.enqueue(Reply(body=__import__("json").dumps(body).encode()))
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


# -- Anthropic's credentials ---------------------------------------------------------------------

HAS_CREDENTIALS = "credentials" in inspect.signature(anthropic.Anthropic.__init__).parameters
if HAS_CREDENTIALS:
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


if hasattr(anthropic.Anthropic, "with_middleware"):

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


# -- without any configuration -------------------------------------------------------------------


@pytest.fixture
def _nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A directory without a file, and a process that has not made its default guard yet."""
    monkeypatch.chdir(tmp_path)
    config._default.cache_clear()


@pytest.mark.usefixtures("_nothing_configured")
def test_a_bare_client_meters_and_limits_nothing(
    provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """It works as the plain one does, has receipts, and says once that nothing is limited."""
    caplog.set_level(logging.WARNING, "quotaguard")
    clients = [
        quotaguard.GuardedOpenAI(api_key="test", base_url=provider.openai_url) for _ in range(2)
    ]
    for client in (*clients, clients[0].copy()):
        answer = client.chat.completions.create(model="gpt-4o", messages=[])
        used = quotaguard.receipt(answer).used
        assert used is not None
        assert used.tokens > 0
    said = [record for record in caplog.records if "without limiting" in record.message]
    assert len(said) == 1
    for client in clients:
        client.close()


@pytest.mark.usefixtures("_nothing_configured")
def test_limits_of_the_environment(provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that are given no guard share the one that the environment describes."""
    monkeypatch.setenv("QUOTAGUARD_LIMITS", "1 request/day")
    one, two = (
        quotaguard.GuardedOpenAI(api_key="test", base_url=provider.openai_url) for _ in range(2)
    )
    one.chat.completions.create(model="gpt-4o", messages=[])
    with pytest.raises(openai.RateLimitError, match="1 requests/day"):
        two.chat.completions.create(model="gpt-4o", messages=[])
    with disabled():
        two.chat.completions.create(model="gpt-4o", messages=[])
    one.close()
    two.close()


def test_the_quota_arguments_are_no_arguments_of_the_sdks() -> None:
    """Ours would hide theirs."""
    for plain, *_ in (param.values for param in CLASSES):
        names = {
            *inspect.signature(plain.__init__).parameters,
            *inspect.signature(plain.copy).parameters,
        }
        assert names.isdisjoint(QUOTA_ARGUMENTS)
