"""Listening to streams: what tells is read as it comes, the words only if the stream is cut off."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotaguard.providers.anthropic import AnthropicTally
from quotaguard.providers.openai import OpenAITally
from quotaguard.providers.tally import Tally

USAGE = {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
SEPARATORS = [(",", ":"), (", ", ": "), (" , ", " : "), (",\n ", ":\n\t")]
HOSTILE = ['"usage": {"prompt_tokens": 1}', '"response": {"background": true}', '"usage":7', "\\"]
NO_EVENTS = [
    *(b"", b"{", b"[]", b"7", b"null", b"\xff", b'"usage":{', b'{"usage":7}'),
    *(b'{"choices":7,"usage":7}', b'{"choices":[7,{"delta":7}]}'),
    b'{"type":"message_start","message":7}',
]
words = st.lists(st.one_of(st.text(max_size=20), st.sampled_from(HOSTILE)), max_size=6)
spacings = st.sampled_from(SEPARATORS)
ascii_only = st.booleans()


def written(event: object, separators: tuple[str, str], ascii_only: bool) -> bytes:
    """An event as some server might write it."""
    text = json.dumps(event, separators=separators, ensure_ascii=ascii_only)
    return text.encode("utf-8", "surrogatepass")


def chat(word: str, **more: Any) -> dict[str, Any]:
    """A chunk of a chat."""
    return {"object": "chat.completion.chunk", "choices": [{"delta": {"content": word}}], **more}


@given(words, spacings, ascii_only, st.booleans())
def test_however_it_is_written_usage_is_read(
    said: list[str], separators: tuple[str, str], ascii_only: bool, hide: bool
) -> None:
    """White space, escapes, ``"usage": null`` in each chunk and words that look like usage change
    nothing: the usage is read, its chunk hidden if only we asked for it, the words are counted.
    """
    tally = OpenAITally(hide=hide)
    events = [written(chat(word, usage=None), separators, ascii_only) for word in said]
    assert not any(map(tally.tells, events))
    assert all(map(tally.take, events))
    assert tally.usage() is None
    assert tally.cut_off(events, len) == (None, len("".join(said)))

    last = written({"choices": [], "usage": USAGE}, separators, ascii_only)
    assert tally.take(last) is not hide
    used = tally.usage()
    assert used is not None
    assert (used.input_tokens, used.output_tokens) == (5, 6)


def test_usage_in_every_chunk_keeps_the_words_in_order() -> None:
    """Some servers say the usage so far with each word; the last counts, and no word is lost."""
    tally = OpenAITally(hide=True)
    events = []
    for number, word in enumerate(["one ", "two ", "three"], 1):
        usage = {**USAGE, "completion_tokens": number}
        events.append(written(chat(word, usage=usage), (",", ":"), True))
        assert tally.take(events[-1])
    used = tally.usage()
    assert used is not None
    assert used.output_tokens == 3
    assert tally.cut_off(events, ["one two three"].index) == (None, 0)


@given(words, spacings, ascii_only)
def test_a_response_in_the_background_is_known_and_its_end_read(
    said: list[str], separators: tuple[str, str], ascii_only: bool
) -> None:
    """What says the state of a response is read among many events that do not."""
    tally = OpenAITally(hide=False)

    events = []

    def take(kind: str, **fields: Any) -> None:
        event = {**fields, "type": f"response.{kind}"}
        events.append(written(event, separators, ascii_only))
        assert tally.take(events[-1])

    take("queued", response={"id": "resp_1", "background": True, "usage": None})
    assert tally.background == "resp_1"
    for word in said:
        take("output_text.delta", delta=word)
    take("output_text.done", text="".join(said))
    assert not tally.over
    assert tally.cut_off(events, len) == (None, len("".join(said)))

    take("completed", response={"id": "resp_1", "usage": {"input_tokens": 5, "output_tokens": 6}})
    assert tally.over
    used = tally.usage()
    assert used is not None
    assert (used.input_tokens, used.output_tokens) == (5, 6)


@given(words, spacings, ascii_only)
def test_claude_says_its_input_first_and_its_output_last(
    said: list[str], separators: tuple[str, str], ascii_only: bool
) -> None:
    """Cut off in between, the input is known and the words are counted."""
    tally = AnthropicTally()

    events = []

    def take(kind: str, **fields: Any) -> None:
        events.append(written({**fields, "type": kind}, separators, ascii_only))
        assert tally.take(events[-1])

    take("message_start", message={"usage": {"input_tokens": 5, "output_tokens": 1}})
    for word in said:
        take("content_block_delta", delta={"type": "text_delta", "text": word})
    assert tally.usage() is None
    assert tally.cut_off(events, len) == (5, len("".join(said)))

    take("message_delta", usage={"output_tokens": 6})
    used = tally.usage()
    assert used is not None
    assert (used.input_tokens, used.output_tokens) == (5, 6)
    take("message_stop")
    assert tally.over


@pytest.mark.parametrize(
    "tally", [OpenAITally(hide=True), AnthropicTally()], ids=["openai", "claude"]
)
@pytest.mark.parametrize("data", NO_EVENTS)
def test_what_is_no_event_is_shown_and_breaks_nothing(tally: Tally, data: bytes) -> None:
    """It is the caller's to deal with."""
    assert tally.take(data)
    assert tally.usage() is None
    assert tally.cut_off([data], len) == (None, 0)
