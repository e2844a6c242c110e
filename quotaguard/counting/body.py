"""Reading request bodies that may hold anything.

A body is JSON in principle. In practice it also holds pydantic objects (an earlier answer's
content), dataclasses, and the SDKs' sentinels for "not given". These helpers read all of it by
shape and never raise.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

_JSON_TYPES = frozenset({str, dict, list, int, float, bool})
_ABSENT_TYPES = frozenset({"NotGiven", "Omit"})
_MAX_NODES = 20_000


def absent(value: object) -> bool:
    """Whether a value stands for "not given": None, or one of the SDKs' sentinels."""
    return value is None or type(value).__name__ in _ABSENT_TYPES


def fields_of(value: object) -> Mapping[str, Any]:
    """The fields of a mapping, pydantic object or dataclass; an empty mapping for all else."""
    if type(value) is dict:
        return value
    if value is None or type(value) is str:
        return {}
    if isinstance(value, Mapping):
        return value
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):
        try:
            dumped = dump(exclude_unset=True)
        except Exception:  # noqa: BLE001  a foreign object may fail in any way
            return {}
        return dumped if isinstance(dumped, Mapping) else {}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
    return {}


def get(fields: Mapping[str, Any], key: str) -> Any:
    """One field, with None for every kind of "not given"."""
    value = fields.get(key)
    if value is None or type(value) in _JSON_TYPES or not absent(value):
        return value
    return None


def items_of(value: object) -> Iterable[Any]:
    """The items of a list or tuple; nothing for all else (a one-shot iterator is left alone)."""
    return value if isinstance(value, (list, tuple)) else ()


def text_of(value: object) -> str:
    """A value as the text that would be sent: strings as they are, nothing for "not given"."""
    if isinstance(value, str):
        return value
    if value is None or absent(value):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return compact_json(value)


_UNREAD = frozenset(
    {"data", "encrypted_content", "file_data", "id", "result", "signature", "status", "type"}
)


def loose_text(fields: Mapping[str, Any]) -> str:
    """What a part of an unknown kind says, as JSON without its kind, ids and binary data."""
    return compact_json({key: value for key, value in fields.items() if key not in _UNREAD})


def number(value: object) -> int | None:
    """A whole number of tokens, or None where the value is none (booleans, NaN, strings)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return int(value)
    except (OverflowError, ValueError):
        return None


def compact_json(value: object) -> str:
    """The value as compact JSON, non-ASCII kept; a bounded stand-in where it is not JSON."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError, RecursionError):
        return _outline(value)


_DATA_URL = re.compile(r"data:[^,]{0,200},", re.DOTALL)


def decode_base64(data: str, max_bytes: int) -> bytes:
    """The first bytes of base64 data or a data URL; none where it is not base64."""
    prefix = _DATA_URL.match(data)
    start = prefix.end() if prefix else 0
    chunk = data[start : start + (max_bytes + 2) // 3 * 4]
    try:
        raw = chunk.encode("ascii").translate(_URL_SAFE, b" \r\n\t=")
        return base64.b64decode(raw[: len(raw) // 4 * 4] + _tail(raw))[:max_bytes]
    except (UnicodeEncodeError, binascii.Error, ValueError):
        return b""


def _tail(raw: bytes) -> bytes:
    """The last incomplete group of base64 characters, padded."""
    rest = raw[len(raw) // 4 * 4 :]
    return rest + b"=" * (4 - len(rest)) if len(rest) > 1 else b""


_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def _plain(value: object) -> object:
    if absent(value):
        return None
    fields = fields_of(value)
    if fields:
        return dict(fields)
    if isinstance(value, (set, frozenset)):
        return list(value)
    return _str(value)


def _str(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001  the object's own __str__ is not ours
        return type(value).__name__


def _outline(value: object) -> str:
    """Keys and leaves of a value that has no JSON form (cyclic, too deep, odd keys), bounded."""
    out: list[str] = []
    seen: set[int] = set()
    todo = [value]
    while todo and len(out) < _MAX_NODES:
        item = todo.pop()
        if isinstance(item, str):
            out.append(item)
        elif isinstance(item, (Mapping, list, tuple)):
            if id(item) in seen:
                continue
            seen.add(id(item))
            if isinstance(item, Mapping):
                todo.extend(item.values())
                out.extend(_str(key) for key in item)
            else:
                todo.extend(item)
        else:
            out.append(_str(item))
    return '{"'.join(out)
