"""Megabytes made to be slow, and bodies that are no JSON: bounded time, never an error."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from quotaguard.counting import (
    ENDPOINTS,
    bound_request,
    count_request,
    count_text,
    explain_request,
    output_allowance,
)

MEGABYTE = 1_000_000


def random_text(low: int, high: int, seed: int = 1) -> str:
    """A megabyte of characters from a range, the surrogates left out."""
    chance = random.Random(seed)
    return "".join(chr(chance.randrange(low, high)) for _ in range(MEGABYTE // 2))


HOSTILE: dict[str, Callable[[], str]] = {
    "spaces": lambda: " " * MEGABYTE,
    "newlines": lambda: "\n" * MEGABYTE,
    "tabs and newlines": lambda: "\t\n" * (MEGABYTE // 2),
    "one letter": lambda: "a" * MEGABYTE,
    "letters": lambda: random_text(0x61, 0x7B),
    "digits": lambda: random_text(0x30, 0x3A),
    "marks": lambda: random_text(0x21, 0x30),
    "apostrophes": lambda: "'" * MEGABYTE,
    "random unicode": lambda: random_text(0x20, 0xD7FF),
    "lone surrogates": lambda: "\ud800" * (MEGABYTE // 3),
    "combining marks": lambda: "e" + "\u0301" * (MEGABYTE // 2),
    "special tokens": lambda: "<|endoftext|>" * (MEGABYTE // 13),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_megabyte_is_refused_in_milliseconds(exact: str, name: str) -> None:
    """With a limit that it passes, counting stops after a piece or two."""
    text = HOSTILE[name]()
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    count_text("warm")
    started = time.perf_counter()
    counted = count_request("chat", body, stop_after=300)

    assert counted > 300
    assert time.perf_counter() - started < 0.5  # a piece takes 20 ms; this machine may be busy


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_megabyte_is_bounded_without_a_tokenizer(name: str) -> None:
    """In milliseconds, by its bytes."""
    text = HOSTILE[name]()
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    started = time.perf_counter()
    bound = bound_request("chat", body)

    assert bound >= len(text)
    assert time.perf_counter() - started < 0.5


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_megabyte_can_be_counted(exact: str, name: str) -> None:
    """In full, within seconds, and within its bounds."""
    text = HOSTILE[name]()
    started = time.perf_counter()
    counted = count_text(text)

    assert 0 < counted <= len(text.encode("utf-8", "surrogatepass"))
    assert time.perf_counter() - started < 15


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_megabyte_is_approximated_at_once(without_tables: None, name: str) -> None:
    """The fallback is linear too."""
    text = HOSTILE[name]()
    started = time.perf_counter()

    assert count_text(text) > 0
    assert time.perf_counter() - started < 3


class Omit:
    """Named like the SDK's sentinel."""


class Model:
    """Looks like a pydantic object."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def model_dump(self, *, exclude_unset: bool) -> dict[str, Any]:
        """Its fields."""
        return self.fields


class Broken:
    """Fails at whatever is asked of it."""

    def model_dump(self, **_: Any) -> Any:
        """Fails."""
        raise RuntimeError("broken")

    def __str__(self) -> str:
        raise RuntimeError("broken")


@dataclasses.dataclass
class Message:
    """A message as a dataclass."""

    role: str
    content: str


def test_objects_count_like_what_they_stand_for(without_tables: None) -> None:
    """Pydantic objects, dataclasses, tuples and "not given" are read by shape."""
    plain = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello there"}]}
    expected = count_request("chat", plain)

    for message in (Model(role="user", content="hello there"), Message("user", "hello there")):
        assert count_request("chat", {"model": "gpt-4o", "messages": (message,)}) == expected
    assert count_request("chat", {**plain, "tools": Omit(), "response_format": None}) == expected


DEEP: Any = "x"
for _ in range(5_000):
    DEEP = {"type": "object", "properties": {"a": DEEP}, "content": [DEEP]}
RECURSIVE: dict[str, Any] = {"type": "object", "role": "user"}
RECURSIVE.update(properties={"a": RECURSIVE, "b": RECURSIVE}, content=[RECURSIVE], text=RECURSIVE)
RECURSIVE.update(
    items=RECURSIVE, anyOf=[RECURSIVE, RECURSIVE], arguments=RECURSIVE, input=RECURSIVE
)
STRANGE = [
    None,
    0,
    -1.5,
    True,
    "text",
    b"\xff",
    [],
    {},
    [None],
    [[[]]],
    {1: 2},
    {"type": 5},
    object(),
    Broken(),
    {"a", "b"},
    "\ud800",
    DEEP,
    RECURSIVE,
    [RECURSIVE] * 3,
    "[" * 100_000,
]
PLACES = [
    "model",
    "messages",
    "input",
    "prompt",
    "instructions",
    "system",
    "tools",
    "functions",
    "tool_choice",
    "function_call",
    "response_format",
    "text",
    "output_format",
    "output_config",
    "thinking",
    "reasoning",
    "max_tokens",
    "n",
    "best_of",
    "parallel_tool_calls",
]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("place", PLACES)
def test_any_value_anywhere_is_counted(without_tables: None, endpoint: str, place: str) -> None:
    """The provider will object to a strange body; counting does not."""
    request = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": "x"}],
        "input": "x",
        "tools": [{"type": "function", "name": "f", "function": {"name": "f"}}],
    }
    started = time.perf_counter()
    for value in STRANGE:
        body = {**request, place: value}
        assert count_request(endpoint, body) >= 0
        assert bound_request(endpoint, body) >= 0
        output_allowance(endpoint, body)

    assert time.perf_counter() - started < 20


NESTED: list[Callable[[Any], dict[str, Any]]] = [
    lambda x: {"messages": [x]},
    lambda x: {"messages": [{"role": x, "content": "x"}]},
    lambda x: {"messages": [{"role": "user", "content": x, "name": x}]},
    lambda x: {"messages": [{"role": "user", "content": [x, {"type": x}]}]},
    lambda x: {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": x}]}]},
    lambda x: {"messages": [{"role": "user", "content": [{"type": "image", "source": x}]}]},
    lambda x: {"messages": [{"role": "user", "content": [{"type": "document", "source": x}]}]},
    lambda x: {"messages": [{"role": "user", "content": [{"type": "file", "file": x}]}]},
    lambda x: {
        "messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": x}]}]
    },
    lambda x: {"messages": [{"role": "assistant", "tool_calls": [x, x]}]},
    lambda x: {"messages": [{"role": "assistant", "tool_calls": [{"id": x, "function": x}]}]},
    lambda x: {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": x}]}]},
    lambda x: {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": x}]}]},
    lambda x: {"messages": [{"role": "tool", "tool_call_id": x, "content": x}]},
    lambda x: {"tools": [x]},
    lambda x: {"tools": [{"type": "function", "function": {"name": x, "parameters": x}}]},
    lambda x: {"tools": [{"name": x, "description": x, "input_schema": x, "parameters": x}]},
    lambda x: {"tools": [{"function": {"parameters": {"properties": x, "required": x}}}]},
    lambda x: {"tools": [{"function": {"parameters": {"properties": {"a": x}}}}]},
    lambda x: {"tools": [{"type": "custom", "custom": {"format": x}}]},
    lambda x: {"response_format": {"type": "json_schema", "json_schema": x}},
    lambda x: {"response_format": {"type": "json_schema", "json_schema": {"schema": x}}},
    lambda x: {"text": {"format": {"type": "json_schema", "schema": x, "name": x}}},
    lambda x: {"output_config": {"format": {"schema": x}}},
    lambda x: {"input": [x]},
    lambda x: {"input": [{"type": "function_call", "arguments": x, "call_id": x, "name": x}]},
    lambda x: {"input": [{"type": "function_call_output", "call_id": x, "output": x}]},
    lambda x: {"input": [{"type": "reasoning", "encrypted_content": x}]},
    lambda x: {"input": [{"type": "additional_tools", "tools": x}]},
]


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize("place", range(len(NESTED)))
def test_any_value_deep_inside_is_counted(without_tables: None, endpoint: str, place: int) -> None:
    """And the bound is never below the count, the parts never below zero."""
    for value in STRANGE:
        body = {"model": "gpt-4o", **NESTED[place](value)}
        parts = explain_request(endpoint, body)

        assert min(parts) >= 0
        assert bound_request(endpoint, body) >= parts.total == count_request(endpoint, body)


def test_parts_of_unknown_kinds_count_as_what_they_say(without_tables: None) -> None:
    """A new kind of block is not free; its binary data is not taken for text."""
    text = {"type": "text", "text": "something that was found on the web " * 10}
    news = {"type": "news", "title": text["text"], "data": "QUJD" * 10_000}
    user = {"role": "user", "content": [{"type": "text", "text": "x"}]}

    for endpoint in ("chat", "messages"):
        alone = count_request(endpoint, {"model": "claude-opus-5", "messages": [user]})
        with_text = {**user, "content": [*user["content"], text]}
        with_news = {**user, "content": [*user["content"], news]}
        said = count_request(endpoint, {"model": "claude-opus-5", "messages": [with_text]}) - alone
        found = count_request(endpoint, {"model": "claude-opus-5", "messages": [with_news]}) - alone
        assert said <= found <= 1.5 * said + 20
    items = [{"type": "web_search_call", "action": text["text"], "id": "ws_1"}]
    assert count_request("responses", {"input": items}) > count_text(text["text"])


def test_a_screenshot_is_a_picture(without_tables: None) -> None:
    """Outputs of a computer are pictures too."""
    shot = {"type": "computer_screenshot", "image_url": "https://example.org/a.png"}
    item = {"type": "computer_call_output", "call_id": "c", "output": shot}

    assert explain_request("responses", {"model": "gpt-4o", "input": [item]}).images == 85 + 8 * 170


@pytest.mark.parametrize("endpoint", ["", "audio", None, 5])
def test_an_unknown_endpoint_is_named(endpoint: Any) -> None:
    """With those there are."""
    with pytest.raises(ValueError, match="chat, responses, messages"):
        count_request(endpoint, {})


@pytest.mark.parametrize("request_", [None, [], "{}", 5])
def test_a_request_that_is_no_mapping_is_named(request_: Any) -> None:
    """By its type."""
    with pytest.raises(TypeError, match=type(request_).__name__):
        count_request("chat", request_)


def test_an_empty_body_has_a_count(without_tables: None) -> None:
    """For every endpoint."""
    for endpoint in ENDPOINTS:
        assert count_request(endpoint, {}) >= 0


def test_a_request_is_never_changed(without_tables: None) -> None:
    """Nor what is in it."""
    body = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#"}}}],
    }
    before = repr(body)
    count_request("chat", body)

    assert repr(body) == before
