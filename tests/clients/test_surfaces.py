"""Every surface of every client, however its answer is read: charged to the token, nothing open."""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any, Dict  # noqa: UP035 -- see JSON_OBJECT

import openai
import pytest
from pydantic import BaseModel

from quotaguard import Guard, receipt
from quotaguard.testing import FakeProvider, Reply
from tests.clients import clients, surfaces
from tests.clients.clients import PLAIN_ANTHROPIC, PLAIN_OPENAI, Kind
from tests.clients.kit import (
    as_reserved,
    entered,
    got,
    http_library,
    new_guard,
    reach,
    reported,
    run,
    spent,
)
from tests.clients.surfaces import (
    READINGS,
    WORDS,
    Reading,
    Surface,
    called,
    drained,
    raw,
    with_prefix,
)

MATRIX = [(PLAIN_OPENAI, surface) for surface in surfaces.OPENAI] + [
    (PLAIN_ANTHROPIC, surface) for surface in surfaces.ANTHROPIC
]


def prefixed(prefix: str) -> list[tuple[Kind, Surface]]:
    """The part of the matrix that exists behind ``with_raw_response`` and its like."""
    return [
        (kind, surface)
        for kind, surface in MATRIX
        if not surface.manager
        and reach(
            kind.classes["sync"](api_key="test", guard=new_guard()), with_prefix(surface, prefix)
        )
    ]


def ids(value: object) -> str | None:
    """Names of parameters."""
    if isinstance(value, (Kind, Surface)):
        return str(value)
    return value.__name__ if callable(value) else None


@pytest.mark.parametrize(("kind", "surface"), MATRIX, ids=ids)
def test_plain(
    way: str, kind: Kind, surface: Surface, provider: FakeProvider, guard: Guard
) -> None:
    """What the buckets lost is what the provider said, and the answer has its receipt."""

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        answer = await called(client, surface)
        assert spent(guard) == reported(provider)
        assert guard.backend.open_reservations == 0
        note = receipt(answer)
        assert note.settled
        assert note.used is not None
        assert note.used.tokens == spent(guard).tokens
        assert note.requested_model == note.served_model == surface.arguments["model"]
        await got(client.close())

    run(scenario())


@pytest.mark.parametrize("reading", READINGS, ids=ids)
@pytest.mark.parametrize(("kind", "surface"), prefixed("with_streaming_response"), ids=ids)
def test_with_streaming_response(
    way: str,
    kind: Kind,
    surface: Surface,
    reading: Reading,
    provider: FakeProvider,
    guard: Guard,
) -> None:
    """However the body is read, it is metered on its way."""

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        call = reach(client, with_prefix(surface, "with_streaming_response"))
        async with entered(call(**surface.arguments)) as response:
            await reading(response)
            assert receipt(response).settled
        assert spent(guard) == reported(provider)
        assert guard.backend.open_reservations == 0
        await got(client.close())

    run(scenario())


@pytest.mark.parametrize(("kind", "surface"), prefixed("with_streaming_response"), ids=ids)
def test_with_streaming_response_never_read(
    way: str, kind: Kind, surface: Surface, provider: FakeProvider, guard: Guard
) -> None:
    """What nobody read is unknown: as reserved, or for a stream its input and nothing more."""

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        call = reach(client, with_prefix(surface, "with_streaming_response"))
        async with entered(call(**surface.arguments)) as response:
            assert not receipt(response).settled
        expected = as_reserved(response)
        if surface.streams:
            expected = expected._replace(tokens=expected.input_tokens, output_tokens=0)
        assert spent(guard) == expected
        assert guard.backend.open_reservations == 0
        await got(client.close())

    run(scenario())


@pytest.mark.parametrize("reading", ["parsed", "raw"])
@pytest.mark.parametrize(("kind", "surface"), prefixed("with_raw_response"), ids=ids)
def test_with_raw_response(
    way: str,
    kind: Kind,
    surface: Surface,
    reading: str,
    provider: FakeProvider,
    guard: Guard,
) -> None:
    """A raw response is metered whether or not it is parsed."""

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        call = reach(client, with_prefix(surface, "with_raw_response"))
        response = await got(call(**surface.arguments))
        if reading == "parsed":
            await surfaces.parsed(response)
        elif surface.streams:
            await raw(response)
        assert receipt(response).settled
        assert spent(guard) == reported(provider)
        assert guard.backend.open_reservations == 0
        await got(client.close())

    run(scenario())


OTHERS = [
    (kind, surface)
    for kinds, table in ((clients.OPENAI, surfaces.OPENAI), (clients.ANTHROPIC, surfaces.ANTHROPIC))
    for kind in kinds
    for surface in table
    if surface.path in ("chat.completions.create", "responses.create", "messages.create")
    or surface.path in ("embeddings.create", "messages.stream", "beta.messages.create")
]


@pytest.mark.parametrize(("kind", "surface"), OTHERS, ids=ids)
def test_other_clients(
    way: str, kind: Kind, surface: Surface, provider: FakeProvider, guard: Guard
) -> None:
    """Azure's, Bedrock's, Vertex's and users' own clients are charged just so."""

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        assert isinstance(client, kind.classes[way])
        answer = await called(client, surface)
        assert spent(guard) == reported(provider)
        assert guard.backend.open_reservations == 0
        assert receipt(answer).requested_model == surface.arguments["model"]
        await got(client.close())

    run(scenario())


@pytest.mark.parametrize("reading", READINGS, ids=ids)
@pytest.mark.parametrize("kind", clients.ANTHROPIC, ids=ids)
def test_other_clients_streaming_response(
    way: str, kind: Kind, reading: Reading, provider: FakeProvider, guard: Guard
) -> None:
    """Bedrock's binary frames too are metered, whoever reads them."""

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        surface = next(each for each in surfaces.ANTHROPIC if each.streams)
        call = reach(client, with_prefix(surface, "with_streaming_response"))
        async with entered(call(**surface.arguments)) as response:
            await reading(response)
        assert spent(guard) == reported(provider)
        assert guard.backend.open_reservations == 0
        await got(client.close())

    run(scenario())


MESSAGES = [{"role": "user", "content": WORDS}]
POSTS = [
    (PLAIN_OPENAI, "/chat/completions", {"model": "gpt-4o-mini", "n": 2, "messages": MESSAGES}),
    (PLAIN_ANTHROPIC, "/v1/messages", {"model": "claude", "max_tokens": 9, "messages": MESSAGES}),
]


def model_of(client: Any) -> type[BaseModel]:
    """A model of the user's own, made the way that the SDK of a client wants it."""
    names = [cls.__module__.partition(".")[0] for cls in type(client).__mro__]
    sdk = import_module(next(name for name in names if name != "quotaguard"))
    found: type[BaseModel] = type("Mine", (sdk.BaseModel,), {"__annotations__": {"model": str}})
    return found


JSON_OBJECT = Dict[str, Any]  # noqa: UP006 -- on Python 3.10 the SDKs take dict[...] for a class
TAKES_CONTENT = "content" in (openai.OpenAI.post.__kwdefaults__ or {})
"""Whether ``client.post`` sends bytes as they are; older SDKs cannot."""


@pytest.mark.parametrize("cast", ["dict", "object", "response", "model"])
@pytest.mark.parametrize(("kind", "path", "body"), POSTS, ids=ids)
def test_post_casts(
    way: str, kind: Kind, path: str, body: Any, cast: str, provider: FakeProvider, guard: Guard
) -> None:
    """A bare ``client.post`` is metered, whatever its answer is cast to."""

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        types = {"dict": JSON_OBJECT, "object": object, "model": model_of(client)}
        types["response"] = http_library(client).Response
        answer = await got(client.post(path, body=body, cast_to=types[cast]))
        if cast in ("response", "model"):
            assert receipt(answer).used is not None
        else:
            with pytest.raises(LookupError, match="no receipt: dict"):
                receipt(answer)
        assert spent(guard) == reported(provider)
        assert guard.backend.open_reservations == 0
        await got(client.close())

    run(scenario())


@pytest.mark.parametrize("how", ["extra_json", "absolute", *["content"] * TAKES_CONTENT])
@pytest.mark.parametrize(("kind", "path", "body"), POSTS, ids=ids)
def test_post_bodies(
    way: str, kind: Kind, path: str, body: Any, how: str, provider: FakeProvider, guard: Guard
) -> None:
    """The body is found wherever it is: merged in, as bytes, or sent to a whole URL."""
    json_type = {"content-type": "application/json"}
    arguments: dict[str, Any] = {
        "extra_json": {"body": {}, "options": {"extra_json": body}},
        "absolute": {"body": body},
        "content": {"content": json.dumps(body).encode(), "options": {"headers": json_type}},
    }[how]

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        url = str(client.base_url).rstrip("/") + path if how == "absolute" else path
        answer = await got(client.post(url, cast_to=http_library(client).Response, **arguments))
        assert receipt(answer).requested_model == body["model"]
        assert provider.requests[0].body == body
        assert spent(guard) == reported(provider)
        assert guard.backend.open_reservations == 0
        await got(client.close())

    run(scenario())


@pytest.mark.parametrize("how", ["body", *["content"] * TAKES_CONTENT])
@pytest.mark.parametrize(("kind", "path", "body"), POSTS, ids=ids)
def test_post_streams(
    way: str, kind: Kind, path: str, body: Any, how: str, provider: FakeProvider, guard: Guard
) -> None:
    """A bare ``client.post`` may stream, too."""
    body = {**body, "stream": True}
    arguments: dict[str, Any] = {
        "body": {"body": body},
        "content": {
            "content": json.dumps(body).encode(),
            "options": {"headers": {"content-type": "application/json"}},
        },
    }[how]

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        stream_class = client._default_stream_cls[JSON_OBJECT]
        stream = await got(
            client.post(path, cast_to=object, stream=True, stream_cls=stream_class, **arguments)
        )
        assert receipt(await drained(stream)).settled
        assert spent(guard) == reported(provider)
        assert guard.backend.open_reservations == 0
        await got(client.close())

    run(scenario())


def test_an_explicit_zero_is_real(way: str, provider: FakeProvider, guard: Guard) -> None:
    """A provider that says nothing was used has used nothing."""
    provider.enqueue(Reply(input_tokens=0, output_tokens=0))

    async def scenario() -> None:
        client = PLAIN_OPENAI.make(way, provider, guard)
        await called(client, surfaces.OPENAI[0])
        assert spent(guard) == (0, 0, 0, 1)
        await got(client.close())

    run(scenario())
