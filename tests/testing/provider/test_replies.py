from __future__ import annotations

import threading
from typing import Any

import pytest

from quotaguard.testing.provider import FakeProvider, Reply
from quotaguard.testing.provider.samples import sample


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"input_tokens": -1}, "input_tokens must be a whole number, zero or more, not -1"),
        ({"output_tokens": "12"}, "output_tokens must be a whole number, zero or more, not '12'"),
        ({"disconnect_after": 1.5}, "disconnect_after must be a whole number"),
        ({"chunks": 0}, "chunks must be one or more"),
        ({"latency": -0.1}, "latency must be zero seconds or more, not -0.1"),
        ({"status": 99}, "status must be one from 200 to 599"),
        ({"status": 204}, "status must be one from 200 to 599 that has a body, not 204"),
        ({"hold_after": (-1, threading.Event())}, "hold_after must begin with zero or more"),
        ({"headers": {"x": "a\r\nb"}}, "headers must be of Latin-1 and one line each"),
        ({"headers": {"x y": ""}}, "headers must be of Latin-1 and one line each"),
        ({"content_type": "\u2014"}, "headers must be of Latin-1 and one line each"),
        ({"text": "\ud800"}, "text must be text that UTF-8 can carry"),
        (
            {"input_tokens": 3, "cached_tokens": 2, "cache_write_tokens": 2},
            "they cannot be 4 of 3",
        ),
        ({"output_tokens": 3, "reasoning_tokens": 4}, "they cannot be 4 of 3"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, Any], told: str) -> None:
    """A reply that no provider could give is an error where it is made, naming the value."""
    with pytest.raises(ValueError, match=told):
        Reply(**fields)


def test_provider_refuses_nonsense() -> None:
    """Limits below one, an empty list of models, and what is no reply."""
    with pytest.raises(ValueError, match="tpm must be one or more, or None for no limit, not 0"):
        FakeProvider(tpm=0)
    with pytest.raises(ValueError, match="models must name one"):
        FakeProvider(models=())
    with pytest.raises(TypeError, match="reply must be a Reply or a function"):
        FakeProvider("text")  # type: ignore[arg-type]


TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
        }
    },
    "$ref": "#/$defs/node",
}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "text"),
        ({"type": "string", "minLength": 6}, "text.."),
        ({"type": "string", "maxLength": 2}, "te"),
        ({"type": "string", "format": "date"}, "2025-01-01"),
        ({"type": "integer", "minimum": 18}, 18),
        ({"type": "integer", "exclusiveMinimum": 18}, 19),
        ({"type": "number", "maximum": 0.5}, 0.5),
        ({"type": "number", "exclusiveMaximum": 0}, -0.5),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["null", "string"]}, None),
        ({"const": 7}, 7),
        ({"enum": ["red", "blue"]}, "red"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, True),
        ({"properties": {"a": {"allOf": [{"const": "b"}]}}}, {"a": "b"}),
    ],
)
def test_samples_fit(schema: dict[str, Any], value: Any) -> None:
    """The plainest value that the schema allows."""
    assert sample(schema) == value


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "#"},
        {"anyOf": ["text"]},
        {"type": "array", "minItems": "two"},
    ],
)
def test_schemas_that_nothing_fits(schema: dict[str, Any]) -> None:
    """They are told apart from mistakes of the sampler's own."""
    with pytest.raises(ValueError, match="no value can be made for this schema"):
        sample(schema)


def test_samples_of_recursive_schemas_end() -> None:
    """Where the schema lets them: empty arrays and nulls."""
    node = sample(TREE)
    depth = 0
    while node["next"] is not None:
        node, depth = node["next"], depth + 1
    assert 0 < depth < 10
