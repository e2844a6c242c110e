"""What the provider answers: a `Reply`, the script for one HTTP request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from threading import Event
from typing import Any, ClassVar

SENTENCE = "This answer was made up by a provider that runs on this machine."
"""The text of a `Reply` that names none."""

_HEADER = re.compile(r"[!-9;-~]+: [\t -~\xa0-\xff]*")
_BODILESS = frozenset({204, 205, 304})


class _Omit(Enum):
    OMIT = "omit"


@dataclass(frozen=True)
class Reply:
    """What one HTTP request is answered with. Every field has a default that suits most tests.

    What the answer says:

    - `text`: the answer. `None`: a sentence; a JSON value that fits the schema when the request
      asks for structured output; nothing when there are `tool_calls`. With a `status` of 400 or
      more it is the error's message.
    - `tool_calls`: pairs of a function's name and its arguments.
    - `thinking`: a thinking block (Anthropic) or a reasoning summary (OpenAI Responses) before it.
    - `model`: the model said to have answered. `None`: the one asked for.
    - `finish_reason`: `"stop"`, `"length"`, `"tool_calls"` or `"content_filter"`, put into the
      API's own words, or `"failed"` (Responses only); any other word is passed on as it is.
      `None`: the one that is true.
    - `polls`: how many retrievals of a background response still find it in progress.

    What it says it cost, in tokens:

    - `input_tokens`: all of the input, the cached part included. `None`: one for every word of the
      request's text and for every token of a token array, and one at least; images, files and
      tools cost nothing.
    - `output_tokens`: all of the output, reasoning and every choice of `n` included. `None`: one
      for every word of the answer, tool calls included, and `reasoning_tokens`, for each choice.
      More than the request's own maximum (`max_tokens` and its like; the larger if they disagree)
      is cut down to it, the text with it.
    - `cached_tokens`, `cache_write_tokens`: the parts of the input read from and written to a
      prompt cache.
    - `reasoning_tokens`: the part of the output that is not shown. 0: the words of `thinking`.
    - `usage`: `...` for the truth, `Reply.OMIT` to leave the field out, or any JSON value to put in
      its place as it is, right or wrong.

    How it travels:

    - `status`: 400 or more answers an error body in the provider's shape.
    - `headers`, `content_type`: added to, or in place of, the provider's own.
    - `body`: these bytes instead of an answer, on any path. If they are JSON with a `usage`, that
      is what was told.
    - `gzip`: compressed; a stream is flushed at each chunk.
    - `chunks`: the number of pieces a streamed answer comes in. `None`: one for each word.
    - `latency`, `chunk_latency`: seconds before the head, and before each chunk.
    - `hold`: the head waits for this event. `hold_after=(n, event)`: the stream waits for it after
      n chunks. Either for 30 seconds at most, and never beyond the provider's closing.
    - `disconnect_after`: the TCP connection is reset after so many chunks; 0: before a byte of the
      head; an answer that is not streamed is cut in the middle of its body.
    - `error_after`: the stream ends after so many chunks with an error event in the API's shape.
    - `truncate`: the stream ends politely, but without the events that end the API's streams.

    A chunk is an event of the stream. Counting begins with the first piece of content, so
    `hold_after=(0, event)` comes after the opening events; it goes on through the closing ones.

    Raises:
        ValueError: a count or duration below zero, a status out of range, text or a header that
            cannot be sent, or parts of the tokens that are more than the whole.
    """

    text: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    tool_calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    thinking: str = ""
    model: str | None = None
    finish_reason: str | None = None
    polls: int = 0
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    body: bytes | None = None
    gzip: bool = False
    chunks: int | None = None
    latency: float = 0.0
    chunk_latency: float = 0.0
    hold: Event | None = None
    hold_after: tuple[int, Event] | None = None
    disconnect_after: int | None = None
    error_after: int | None = None
    truncate: bool = False
    usage: Any = ...

    OMIT: ClassVar[Any] = _Omit.OMIT

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_text()
        _check_parts(
            "input_tokens", self.input_tokens, self.cached_tokens + self.cache_write_tokens
        )
        _check_parts("output_tokens", self.output_tokens, self.reasoning_tokens)

    def _check_numbers(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None and not (type(value) is int and value >= 0):
                raise ValueError(f"{name} must be a whole number, zero or more, not {value!r}")
        for name in ("latency", "chunk_latency"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be zero seconds or more, not {getattr(self, name)}")
        if self.chunks == 0:
            raise ValueError("chunks must be one or more, or None for one a word, not 0")
        if not 200 <= self.status <= 599 or self.status in _BODILESS:
            raise ValueError(
                f"status must be one from 200 to 599 that has a body, not {self.status!r}"
            )
        if self.hold_after is not None and self.hold_after[0] < 0:
            raise ValueError(f"hold_after must begin with zero or more, not {self.hold_after[0]!r}")

    def _check_text(self) -> None:
        for name in ("text", "thinking"):
            try:
                (getattr(self, name) or "").encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"{name} must be text that UTF-8 can carry: {error}") from None
        for header in (*self.headers.items(), ("content-type", self.content_type or "")):
            if not _HEADER.fullmatch(": ".join(header)):
                raise ValueError(f"headers must be of Latin-1 and one line each, not {header!r}")


def _check_parts(name: str, whole: int | None, parts: int) -> None:
    if whole is not None and parts > whole:
        raise ValueError(f"{name} includes its parts: they cannot be {parts} of {whole}")


_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "polls",
    "chunks",
    "disconnect_after",
    "error_after",
)
