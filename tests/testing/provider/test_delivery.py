"""How answers travel: late, held, cut, broken, compressed, or wrong."""

from __future__ import annotations

import gzip
import http.client
import json
import threading
import time
from typing import Any

import anthropic
import openai
import pytest

from quotaguard.testing.provider import FakeProvider, Reply
from tests.testing.provider.calls import Call, RawClient, chat, message

OPENAI = {"include_usage": True}
STREAMED = {
    "/v1/chat/completions": chat(stream=True, stream_options=OPENAI),
    "/v1/completions": {"model": "m", "prompt": "p", "stream": True, "stream_options": OPENAI},
    "/v1/responses": {"model": "m", "input": "p", "stream": True},
    "/v1/messages": message(stream=True),
}
WHOLE = {
    path: {name: value for name, value in asked.items() if not name.startswith("stream")}
    for path, asked in STREAMED.items()
}
THREE = Reply(text="three small words")
streamed = pytest.mark.parametrize("path", STREAMED)


def test_latency_is_before_the_head(raw: RawClient, provider: FakeProvider) -> None:
    """The answer comes no sooner than the latency, and each chunk no sooner than its own."""
    provider.enqueue(Reply(latency=0.05), Reply(text="one two", chunk_latency=0.02))
    started = time.monotonic()
    raw("/v1/messages", message())
    assert time.monotonic() - started >= 0.05
    started = time.monotonic()
    raw("/v1/chat/completions", chat(stream=True))
    # two words, the finish and the end
    assert time.monotonic() - started >= 4 * 0.02


def test_hold_keeps_the_head_back(raw: RawClient, provider: FakeProvider) -> None:
    """Nothing is sent before the event is set; meanwhile the request is seen, without status."""
    event = threading.Event()
    provider.enqueue(Reply(hold=event))
    raw.connection.request("POST", "/v1/messages", json.dumps(message()))
    (seen,) = provider.wait_until(lambda seen: len(seen) == 1)
    assert (seen.status, seen.usage) == (None, None)
    event.set()
    assert raw.connection.getresponse().status == 200
    assert provider.requests[0].status == 200


@streamed
def test_hold_after_counts_pieces_of_content(
    raw: RawClient, provider: FakeProvider, path: str
) -> None:
    """The stream stops after the opening events and so many pieces, until the event is set."""
    held = threading.Event()
    provider.enqueue(Reply(text="one two three", hold_after=(2, held), usage={"a": 1}))
    raw.connection.connect()
    raw.connection.request("POST", path, json.dumps(STREAMED[path]))
    response = raw.connection.getresponse()
    before = b""
    while b" two" not in before:
        before += response.read1()
    assert b" three" not in before
    held.set()
    assert b" three" in response.read()
    assert provider.requests[0].usage == {"a": 1}


def test_held_usage_is_not_reported_before_it_is_sent(provider: FakeProvider) -> None:
    """What the client was not told yet is not among what was served."""
    held = threading.Event()
    provider.enqueue(Reply(text="one two", hold_after=(0, held)))
    with openai.OpenAI(base_url=provider.openai_url, api_key="test") as client:
        stream = client.chat.completions.create(**STREAMED["/v1/chat/completions"])
        assert next(iter(stream)).choices[0].delta.role == "assistant"
        assert provider.served.requests == 0
        held.set()
        assert len(list(stream)) == 4
    assert provider.served.requests == 1


def test_a_hold_may_come_after_the_last_event(raw: RawClient, provider: FakeProvider) -> None:
    """Then only the body's end is kept back."""
    held = threading.Event()
    provider.enqueue(Reply(text="one", hold_after=(3, held)))
    raw.connection.request("POST", "/v1/chat/completions", json.dumps(chat(stream=True)))
    response = raw.connection.getresponse()
    content = b""
    while b"[DONE]" not in content:
        content += response.read1()
    assert not response.isclosed()
    held.set()
    assert response.read() == b""


@pytest.mark.parametrize("path", [*STREAMED, "/v1/embeddings"])
def test_disconnect_before_the_head(raw: RawClient, provider: FakeProvider, path: str) -> None:
    """The connection is reset without a byte."""
    provider.enqueue(Reply(disconnect_after=0))
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        raw(path, STREAMED.get(path, {"model": "m", "input": "text"}))
    assert provider.requests[0].status is None
    assert provider.served.requests == 0


@streamed
def test_disconnect_in_a_stream(raw: RawClient, provider: FakeProvider, path: str) -> None:
    """So many pieces come, and then the connection is reset: no end, no usage of the whole."""
    provider.enqueue(Reply(text="one two three", disconnect_after=2))
    raw.connection.request("POST", path, json.dumps(STREAMED[path]))
    response = raw.connection.getresponse()
    content = b""
    try:
        while part := response.read1():
            content += part
        pytest.fail("the body ended as if it were whole")
    except (ConnectionError, http.client.IncompleteRead):
        pass
    assert b" two" in content
    assert b" three" not in content
    assert provider.served.output_tokens <= 1


@pytest.mark.parametrize("path", WHOLE)
def test_disconnect_in_a_whole_body(raw: RawClient, provider: FakeProvider, path: str) -> None:
    """An answer that is not streamed is cut in the middle, and its usage was not told."""
    provider.enqueue(Reply(disconnect_after=1))
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        raw(path, WHOLE[path])
    assert (provider.requests[0].status, provider.requests[0].usage) == (200, None)
    assert provider.served.requests == 0


def test_the_sdks_see_a_connection_error(by_openai: Call, provider: FakeProvider) -> None:
    """What is cut before the head is the SDK's own connection error."""
    provider.enqueue(Reply(disconnect_after=0))
    with pytest.raises(openai.APIConnectionError):
        by_openai(lambda client: client.chat.completions.create(**chat()))


@streamed
def test_truncated_stream_ends_politely(raw: RawClient, provider: FakeProvider, path: str) -> None:
    """All the content comes, the body ends as it should, but the API's last events are missing."""
    provider.enqueue(Reply(text="three small words", truncate=True), THREE)
    cut, whole = (raw(path, STREAMED[path]) for _ in range(2))
    assert b" words" in cut.content
    assert len(cut.events) < len(whole.events)
    final = ("[DONE]", '"finish_reason":"stop"', "response.completed", "message_stop")
    assert not any(mark.encode() in cut.content for mark in final)
    assert provider.requests[0].usage is None or path == "/v1/messages"


def test_error_event_of_chat(by_openai: Call, provider: FakeProvider) -> None:
    """The SDK raises what the stream says went wrong."""
    provider.enqueue(Reply(error_after=1))
    with pytest.raises(openai.APIError, match="had an error"):
        by_openai(lambda client: client.chat.completions.create(**chat(stream=True)))


def test_error_event_of_responses(raw: RawClient, provider: FakeProvider) -> None:
    """The stream ends with an event of type `error`."""
    provider.enqueue(Reply(text="one two three", error_after=2))
    events = raw("/v1/responses", STREAMED["/v1/responses"]).events
    assert [event["type"] for event in events[-2:]] == ["response.output_text.delta", "error"]
    assert events[-1]["code"] == "server_error"


def test_error_event_of_messages(by_anthropic: Call, provider: FakeProvider) -> None:
    """The SDK raises what the stream says went wrong; the input was told, and so is served."""
    provider.enqueue(Reply(input_tokens=12, error_after=1))
    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        by_anthropic(lambda client: client.messages.create(**message(stream=True)))
    assert (provider.served.input_tokens, provider.served.output_tokens) == (12, 1)


@pytest.mark.parametrize("asked", [STREAMED, WHOLE], ids=["streamed", "whole"])
@pytest.mark.parametrize("path", STREAMED)
def test_gzip(raw: RawClient, provider: FakeProvider, asked: Any, path: str) -> None:
    """The same bytes, compressed, whether whole or in a stream."""
    provider.enqueue(THREE, Reply(text=THREE.text, gzip=True))
    plain, zipped = (raw(path, asked[path]) for _ in range(2))
    assert zipped.headers["content-encoding"] == "gzip"
    assert b"small" in gzip.decompress(zipped.content)
    assert len(gzip.decompress(zipped.content)) == len(plain.content)


def test_gzip_streams_are_flushed_at_each_chunk(provider: FakeProvider) -> None:
    """A client that decompresses as it reads has the first pieces while the rest is held."""
    held = threading.Event()
    provider.enqueue(Reply(text="one two", gzip=True, hold_after=(1, held)))
    with openai.OpenAI(base_url=provider.openai_url, api_key="test") as client:
        stream = client.chat.completions.create(**chat(stream=True))
        assert [next(stream).choices[0].delta.content for _ in range(2)] == ["", "one"]
        held.set()
        assert [chunk.choices[0].delta.content for chunk in stream] == [" two", None]


def test_chunks_is_the_number_of_pieces(raw: RawClient, provider: FakeProvider) -> None:
    """However short the text."""
    provider.enqueue(Reply(text="abc", chunks=5))
    events = raw("/v1/messages", message(stream=True)).events
    deltas = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert (len(deltas), "".join(deltas)) == (5, "abc")


@pytest.mark.parametrize("usage", [None, "12", {"prompt_tokens": "x"}, {}, [], 0])
def test_usage_may_be_anything(raw: RawClient, provider: FakeProvider, usage: Any) -> None:
    """Right or wrong, it is sent as it is, and adds nothing that is no figure."""
    provider.enqueue(Reply(usage=usage), Reply(usage=usage))
    for path in ("/v1/chat/completions", "/v1/messages"):
        assert raw(path, WHOLE[path]).json["usage"] == usage
    assert [seen.usage for seen in provider.requests] == [usage] * 2
    assert (provider.served.input_tokens, provider.served.output_tokens) == (0, 0)


@streamed
@pytest.mark.parametrize("usage", [None, "12", {"prompt_tokens": "x"}])
def test_streamed_usage_may_be_anything(
    raw: RawClient, provider: FakeProvider, path: str, usage: Any
) -> None:
    """In a stream it stands where the true one would have stood."""
    provider.enqueue(Reply(usage=usage))
    events = raw(path, STREAMED[path]).events
    told = [find(event, "usage") for event in events if event != "[DONE]"]
    assert usage in told
    assert provider.requests[0].usage == usage


def find(event: dict[str, Any], name: str) -> Any:
    """The field of an event, or of the message or response in it; `...` when it has none."""
    inner = event.get("message") or event.get("response") or event
    return inner.get(name, ...)


@streamed
def test_usage_may_be_left_out(raw: RawClient, provider: FakeProvider, path: str) -> None:
    """Then no answer has it, whole or streamed, and a chat stream has no chunk for it either."""
    provider.enqueue(Reply(usage=Reply.OMIT), Reply(usage=Reply.OMIT))
    assert "usage" not in raw(path, WHOLE[path]).json
    events = [event for event in raw(path, STREAMED[path]).events if event != "[DONE]"]
    assert all(find(event, "usage") in (..., None) for event in events)
    assert all(event.get("choices", ["one"]) for event in events)
    assert provider.served.requests == 0


def test_body_headers_and_type_may_be_any(raw: RawClient, provider: FakeProvider) -> None:
    """A scripted body is sent as it is, on a path that is not known too."""
    page = Reply(
        body=b"<h1>Bad gateway</h1>", status=502, content_type="text/html", headers={"X-Who": "me"}
    )
    provider.enqueue(page, page)
    for path in ("/v1/chat/completions", "/v2/anything"):
        answer = raw(path, chat())
        assert (answer.status, answer.content) == (502, b"<h1>Bad gateway</h1>")
        assert (answer.headers["content-type"], answer.headers["x-who"]) == ("text/html", "me")
