"""Cutting bodies into the events that a tally listens to."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Iterable
from typing import Any, Protocol

from ..providers import Tally


class Frames(Protocol):
    """Cuts a body into events."""

    done: bool
    """Whether the body has said that nothing follows."""

    def take(self, chunk: bytes, tally: Tally) -> bytes:
        """Tell the tally of the events that are complete; answers with what the caller is to
        see.
        """
        ...

    def rest(self, tally: Tally) -> bytes:
        """Tell the tally of what is left at the end; answers with what of it the caller is to
        see.
        """
        ...

    def events(self) -> Iterable[bytes]:
        """The JSON of all events so far, once more."""
        ...


_BLANK_LINE = re.compile(rb"\n\n")
_ANY_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_LONGEST = 4
_LAST = b"[DONE]"
"""What the last event carries, where it is OpenAI's."""


class ServerSentEvents:
    """``text/event-stream`` (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""

    def __init__(self, *, editing: bool) -> None:
        self._editing = editing
        self._kept: list[bytes] = []
        """The body so far."""
        self._buffer = bytearray()
        self._blank_line = _BLANK_LINE
        self.done = False

    def take(self, chunk: bytes, tally: Tally) -> bytes:
        self._kept.append(chunk)
        if chunk.endswith(b"\n\n") and not (self._buffer or _LAST in chunk or tally.tells(chunk)):
            return chunk  # whole events, as nearly always: there is no need to cut them
        if b"\r" in chunk:
            self._blank_line = _ANY_BLANK_LINE
        data: bytes | bytearray = chunk
        searched = 0
        if self._buffer:
            # Only what is new is searched: an event may be as long as the whole answer.
            searched = max(0, len(self._buffer) - _LONGEST)
            self._buffer += chunk
            data = self._buffer
        shown: list[bytes] = []
        start = 0
        for end in [blank.end() for blank in self._blank_line.finditer(data, searched)]:
            event = bytes(data[start:end])
            start = end
            if self._hear(event, tally):
                shown.append(event)
        if data is chunk:
            self._buffer += chunk[start:]
        else:
            del self._buffer[:start]
        return b"".join(shown) if self._editing else chunk

    def _hear(self, event: bytes, tally: Tally) -> bool:
        text = _data_of(event)
        if text.strip() == _LAST:
            self.done = True
            return True
        return tally.take(text)

    def rest(self, tally: Tally) -> bytes:
        event = bytes(self._buffer)
        self._buffer.clear()
        return event if self._hear(event, tally) and self._editing else b""

    def events(self) -> Iterable[bytes]:
        body = b"".join(self._kept)
        whole = body[: len(body) - len(self._buffer)]
        return map(_data_of, _ANY_BLANK_LINE.split(whole))


def _data_of(event: bytes) -> bytes:
    """What an event carries; empty if it is a comment."""
    return b"\n".join([line[5:] for line in event.splitlines() if line.startswith(b"data:")])


class AmazonEvents:
    """``application/vnd.amazon.eventstream``: length-prefixed frames whose payload is
    ``{"bytes": <base64 of the event>}``
    (https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html).
    """

    _PRELUDE = struct.Struct("!II4x")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._kept: list[bytes] = []
        self.done = False

    def take(self, chunk: bytes, tally: Tally) -> bytes:
        data = self._buffer
        data += chunk
        while len(data) >= self._PRELUDE.size:
            total, headers = self._PRELUDE.unpack_from(data)
            if len(data) < total or total < self._PRELUDE.size + headers + 4:
                break
            payload = data[self._PRELUDE.size + headers : total - 4]
            del data[:total]
            try:
                inner = base64.b64decode(json.loads(payload)["bytes"])
            except (ValueError, KeyError, TypeError):
                continue
            self._kept.append(inner)
            tally.take(inner)
        return chunk

    def rest(self, tally: Tally) -> bytes:
        return b""

    def events(self) -> Iterable[bytes]:
        return self._kept


class WholeBody:
    """A body that is one JSON document."""

    done = False

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def take(self, chunk: bytes, tally: Tally) -> bytes:
        self._chunks.append(chunk)
        return chunk

    def rest(self, tally: Tally) -> bytes:
        return b""

    def events(self) -> Iterable[bytes]:
        return ()

    def answer(self) -> Any:
        """The document; None if it is no JSON."""
        return parsed(b"".join(self._chunks))


def parsed(text: bytes) -> Any:
    """What a JSON text says; None if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
