"""The census: every path that the installed SDKs post to is metered, or knowingly not."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from quotaguard import UnmeteredEndpoint
from quotaguard.providers import Provider, patterns
from quotaguard.providers import anthropic as anthropic_tables
from quotaguard.providers import openai as openai_tables
from quotaguard.providers.anthropic import AnthropicProvider
from quotaguard.providers.openai import OpenAIProvider
from quotaguard.testing import FakeProvider, Reply
from tests.clients.clients import PLAIN_ANTHROPIC, PLAIN_OPENAI
from tests.clients.kit import got, new_guard, run, spent

TABLES = {"openai": openai_tables, "anthropic": anthropic_tables}
PROVIDERS: dict[str, Provider] = {"openai": OpenAIProvider(), "anthropic": AnthropicProvider()}


def calls(sdk: str) -> Iterator[ast.Call]:
    """Every call in the modules of an SDK's resources."""
    root = Path(str(importlib.import_module(f"{sdk}.resources").__file__)).parent
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield node


def posts(node: ast.Call) -> bool:
    """Whether it is ``self._post(path, ...)`` or a paged list that is posted."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    method = {key.arg: ast.unparse(key.value) for key in node.keywords}.get("method")
    return name in ("_post", "post") or (name == "_get_api_list" and method == "'post'")


def template(node: ast.expr) -> str:
    """A path with ``{}`` for what is filled in, however this version of the SDK writes it."""
    match node:
        case ast.Constant(value=str(text)):
            return re.sub(r"\{\w*\}", "{}", text).partition("?")[0]
        case ast.JoinedStr(values=parts):
            texts = (p.value if isinstance(p, ast.Constant) else "{}" for p in parts)
            return "".join(map(str, texts)).partition("?")[0]
        case ast.Call(args=[first, *_]):  # path_template("/files/{id}", id=id)
            return template(first)
    raise AssertionError(f"the census cannot read this path: {ast.unparse(node)}")


def census(sdk: str) -> set[str]:
    """The paths that an SDK posts to."""
    return {template(node.args[0]) for node in calls(sdk) if posts(node) and node.args}


def listed(sdk: str, path: str) -> list[str]:
    """The tables that have a path as it stands, else those that have it by a pattern."""
    tables = {name: getattr(TABLES[sdk], name) for name in ("METERED", "UNMETERED", "FREE")}
    return [name for name, table in tables.items() if path in table] or [
        name for name, table in tables.items() if any(_fits(path, each) for each in table)
    ]


def _fits(path: str, entry: str) -> bool:
    """Whether an entry has a path that begins at the root: no base path excuses anything."""
    (pattern,) = patterns([entry])
    return re.fullmatch(pattern.pattern.removeprefix(".*?"), path) is not None


@pytest.mark.parametrize("sdk", TABLES)
def test_every_path_is_in_one_table(sdk: str) -> None:
    """A new endpoint of a new SDK is noticed here: put it into METERED, UNMETERED or FREE."""
    found = census(sdk)
    assert len(found) >= 4
    assert {path: listed(sdk, path) for path in found if len(listed(sdk, path)) != 1} == {}


@pytest.mark.parametrize("sdk", TABLES)
def test_the_route_follows_the_tables(sdk: str) -> None:
    """What a request is said to be is what its table says, below any base path."""
    kinds = {"METERED": "metered", "UNMETERED": "unmetered", "FREE": "free"}
    for path in census(sdk):
        (table,) = listed(sdk, path)
        for base in ("", "/v1", "/openai/v1", "/gateway/team"):
            route = PROVIDERS[sdk].route("POST", base + path.replace("{}", "some-id"))
            assert (path, route.kind) == (path, kinds[table])
            assert PROVIDERS[sdk].route("delete", base + path).kind == "free"


@pytest.mark.parametrize("sdk", TABLES)
def test_what_nobody_knows_may_spend(sdk: str) -> None:
    """A path that no table has is taken for one that spends: strict guards refuse it."""
    assert PROVIDERS[sdk].route("post", "/v9/oracle").kind == "unmetered"


def socket_openers() -> set[str]:
    """The dotted names of openai's resources that have a ``connect``."""
    client = openai.OpenAI(api_key="test")
    found = set()

    def walk(holder: Any, path: str) -> None:
        for name, value in vars(type(holder)).items():
            resource = getattr(holder, name) if callable(getattr(value, "__get__", None)) else None
            if hasattr(resource, "_get_api_list"):
                below = f"{path}.{name}".lstrip(".")
                if hasattr(resource, "connect"):
                    found.add(below)
                walk(resource, below)

    walk(client, "")
    for name, value in vars(client).items():  # older SDKs make resources at once
        if hasattr(value, "_get_api_list"):
            walk(value, name)
    return found


def test_every_web_socket_is_known() -> None:
    """What opens a socket goes past every request; strict guards must know where."""
    assert socket_openers() <= set(openai_tables.SOCKETS)


def test_strict_guards_open_no_socket(way: str, provider: FakeProvider) -> None:
    """On the client and on its copies."""
    client = PLAIN_OPENAI.make(way, provider, new_guard(strict=True))
    for each in (client, client.with_options(timeout=3)):
        for path in socket_openers():
            resource = each
            for name in path.split("."):
                resource = getattr(resource, name)
            with pytest.raises(UnmeteredEndpoint, match="web socket"):
                resource.connect(model="gpt-realtime")
    run(got(client.close()))


UNMETERED = [
    (PLAIN_OPENAI, lambda client: client.images.generate(prompt="a cat", model="gpt-image-1")),
    (PLAIN_OPENAI, lambda client: client.audio.speech.create(input="x", model="tts", voice="y")),
    (PLAIN_OPENAI, lambda client: client.batches.create(**_BATCH)),
    (PLAIN_OPENAI, lambda client: client.post("/oracle", body={}, cast_to=object)),
    (PLAIN_ANTHROPIC, lambda client: client.messages.batches.create(requests=[])),
]
_BATCH = {"completion_window": "24h", "endpoint": "/v1/responses", "input_file_id": "f"}


@pytest.mark.parametrize(("kind", "call"), UNMETERED)
def test_unmetered_endpoints(
    way: str, kind: Any, call: Callable[[Any], Any], provider: FakeProvider
) -> None:
    """They pass untouched; are counted as requests if asked; and are refused by strict guards."""
    plain, counting = new_guard(), new_guard(count_unmetered=True)
    strict = new_guard(strict=True, count_unmetered=True)
    provider.enqueue(*[Reply(body=b'{"id": "x", "usage": {"input_tokens": 5}}')] * 2)

    async def scenario() -> None:
        for guard in (plain, counting):
            client = kind.make(way, provider, guard)
            await got(call(client))
            await got(client.close())
        client = kind.make(way, provider, strict)
        with pytest.raises(UnmeteredEndpoint, match="strict"):
            await got(call(client))
        await got(client.close())

    run(scenario())
    assert spent(plain) == (0, 0, 0, 0)
    assert spent(counting) == (0, 0, 0, 1)
    assert spent(strict) == (0, 0, 0, 0)
    assert len(provider.requests) == 2


@pytest.mark.parametrize("kind", [PLAIN_OPENAI, PLAIN_ANTHROPIC], ids=str)
def test_free_endpoints_pass_strict_guards(way: str, kind: Any, provider: FakeProvider) -> None:
    """Listing models or counting tokens generates nothing."""
    guard = new_guard(strict=True)

    async def scenario() -> None:
        client = kind.make(way, provider, guard)
        assert (await got(client.models.list())).data
        if kind is PLAIN_ANTHROPIC:
            words = [{"role": "user", "content": "three small words"}]
            count = client.messages.count_tokens(model="claude-test", messages=words)
            assert (await got(count)).input_tokens == 3
        await got(client.close())

    run(scenario())
    assert spent(guard) == (0, 0, 0, 0)
