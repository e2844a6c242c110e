"""A JSON value that fits a schema: what a model with structured output would have answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FORMATS = {
    "date-time": "2025-01-01T00:00:00Z",
    "date": "2025-01-01",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_DEEP = 6
"""Levels after which a schema that may end is made to: schemas are recursive in practice."""


def sample(schema: Mapping[str, Any]) -> Any:
    """The plainest value that fits a schema of objects, arrays, enumerations and bounds.

    Patterns are not honoured, and of `allOf` only the first member is.

    Raises:
        ValueError: the schema is none, refers to what it does not have, or lets no value end.
    """
    try:
        return _sample(schema, schema, 0)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
        raise ValueError(f"no value can be made for this schema: {error!r}") from None


def _sample(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if "$ref" in schema:
        return _sample(_resolve(schema["$ref"], root), root, depth + 1)
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            members = schema[union]
            ends = [member for member in members if member.get("type") == "null"]
            return _sample(ends[0] if ends and depth > _DEEP else members[0], root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = "null" if "null" in kind and depth > _DEEP else kind[0]
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: _sample(of, root, depth + 1) for name, of in properties.items()}
    if kind == "array":
        least = schema.get("minItems", 0 if depth > _DEEP else 1)
        return [_sample(schema.get("items", {}), root, depth + 1) for _ in range(least)]
    if kind in ("integer", "number"):
        return _number(schema, whole=kind == "integer")
    if kind in ("boolean", "null"):
        return True if kind == "boolean" else None
    return _string(schema)


def _string(schema: Mapping[str, Any]) -> str:
    text = _FORMATS.get(schema.get("format", ""), "text")
    return text.ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]


def _number(schema: Mapping[str, Any], *, whole: bool) -> Any:
    step = 1 if whole else 0.5
    if "minimum" in schema:
        return schema["minimum"]
    if "exclusiveMinimum" in schema:
        return schema["exclusiveMinimum"] + step
    if "maximum" in schema:
        return min(1, schema["maximum"])
    if "exclusiveMaximum" in schema:
        return min(1, schema["exclusiveMaximum"] - step)
    return 1


def _resolve(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for step in reference.lstrip("#/").split("/") if reference != "#" else ():
        found = found[step.replace("~1", "/").replace("~0", "~")]
    return found  # type: ignore[no-any-return]
