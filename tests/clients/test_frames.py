"""Cutting bodies into events: however the network cuts them, they say and show the same."""

from __future__ import annotations

import base64
import itertools
import json
import struct
import time

from hypothesis import given
from hypothesis import strategies as st

from quotaguard.clients.frames import AmazonEvents, ServerSentEvents
from quotaguard.providers.anthropic import AnthropicTally
from quotaguard.providers.openai import OpenAITally

USAGE = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
USAGE_CHUNK = json.dumps({"choices": [], "usage": USAGE}).encode()
texts = st.text(max_size=20).filter(lambda text: "\r" not in text and "\n" not in text)


def chunks_of(body: bytes, cuts: list[int]) -> list[bytes]:
    """A body cut at these places."""
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return [body[a:b] for a, b in itertools.pairwise(places)]


@given(
    st.lists(texts, max_size=6),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(0, 10_000), max_size=12),
    st.booleans(),
)
def test_server_sent_events(
    words: list[str], end: bytes, cuts: list[int], last_is_whole: bool
) -> None:
    """The usage is heard, its event hidden, and every other byte shown."""
    events = [
        json.dumps({"choices": [{"delta": {"content": word}}]}, ensure_ascii=False).encode()
        for word in words
    ]
    kept = b"".join(b"data: " + event + end * 2 for event in [*events, b"[DONE]"])
    hidden = b"data: " + USAGE_CHUNK + (end * 2 if last_is_whole else b"")
    frames, tally = ServerSentEvents(editing=True), OpenAITally(hide=True)
    shown = b"".join(frames.take(chunk, tally) for chunk in chunks_of(kept + hidden, cuts))
    shown += frames.rest(tally)
    assert shown.strip() == kept.strip()
    assert frames.done
    usage = tally.usage()
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (5, 6)
    assert tally.cut_off(frames.events(), len)[1] == len("".join(words))


@given(st.lists(texts, max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
def test_amazon_events(words: list[str], cuts: list[int]) -> None:
    """Binary frames are passed on as they are, and heard."""
    events = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 7, "output_tokens": 1}}},
        *({"type": "content_block_delta", "delta": {"text": word}} for word in words),
        {"type": "message_delta", "usage": {"output_tokens": 9}},
    ]
    body = b"".join(map(_frame, events))
    frames, tally = AmazonEvents(), AnthropicTally()
    shown = b"".join(frames.take(chunk, tally) for chunk in chunks_of(body, cuts))
    assert shown + frames.rest(tally) == body
    usage = tally.usage()
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (7, 9)
    assert tally.cut_off(frames.events(), len) == (7, len("".join(words)))


def _frame(event: object) -> bytes:
    payload = json.dumps({"bytes": base64.b64encode(json.dumps(event).encode()).decode()}).encode()
    total = 12 + len(payload) + 4
    return struct.pack("!III", total, 0, 0) + payload + b"\0\0\0\0"


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_any_bytes_pass(body: bytes, cuts: list[int]) -> None:
    """What is no event stream at all comes through whole, and breaks nothing."""
    for frames in (ServerSentEvents(editing=True), ServerSentEvents(editing=False), AmazonEvents()):
        tally = OpenAITally(hide=True)
        shown = b"".join(frames.take(chunk, tally) for chunk in chunks_of(body, cuts))
        assert shown + frames.rest(tally) == body


def test_a_huge_event_takes_linear_time() -> None:
    """One event may be the whole answer: each byte of it is looked at a few times, not once for
    every chunk.
    """

    def seconds(megabytes: int) -> float:
        frames, tally = ServerSentEvents(editing=True), OpenAITally(hide=True)
        chunk = b"x" * 4096
        began = time.perf_counter()
        for _ in range(megabytes * 256):
            frames.take(chunk, tally)
        return time.perf_counter() - began

    seconds(1)
    assert min(seconds(8) for _ in range(3)) < 8 * 4 * max(seconds(1) for _ in range(3))
