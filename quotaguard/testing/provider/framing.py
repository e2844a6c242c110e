"""How events lie in a body: server-sent events, or AWS's binary event stream."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

from .answers import Event

SSE = "text/event-stream; charset=utf-8"
AWS = "application/vnd.amazon.eventstream"

_STRING = 7
"""The type of a header whose value is a string, in AWS's framing."""


def to_json(value: Any) -> bytes:
    """Compact JSON in UTF-8, as the providers send it: not escaped to ASCII."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def sse(event: Event) -> bytes:
    """A server-sent event, named if the API names its events."""
    data = event.data.encode() if isinstance(event.data, str) else to_json(event.data)
    name = f"event: {event.name}\n".encode() if event.name else b""
    return b"%bdata: %b\n\n" % (name, data)


def aws(event: Event) -> bytes:
    """A frame of Bedrock's: the event in base64, or, for an error, an exception that ends it."""
    assert isinstance(event.data, dict)
    if event.name == "error":
        kind = {":exception-type": "internalServerException", ":message-type": "exception"}
        payload = {"message": event.data["error"]["message"]}
    else:
        kind = {":event-type": "chunk", ":message-type": "event"}
        payload = {"bytes": base64.b64encode(to_json(event.data)).decode()}
    return _frame({**kind, ":content-type": "application/json"}, to_json(payload))


def _frame(headers: dict[str, str], payload: bytes) -> bytes:
    """Lengths, their CRC-32, headers, payload, and the CRC-32 of all that; big-endian."""
    packed = b"".join(
        struct.pack(">B", len(name))
        + name.encode()
        + struct.pack(">BH", _STRING, len(value))
        + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(packed) + len(payload), len(packed))
    checked = prelude + struct.pack(">I", zlib.crc32(prelude)) + packed + payload
    return checked + struct.pack(">I", zlib.crc32(checked))
