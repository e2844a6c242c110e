from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from quotaguard.testing.provider import FakeProvider, Reply, Seen, Served
from tests.testing.provider.calls import Call, RawClient, chat, message

LONG = 30.0


def test_replies_are_used_in_order_and_then_the_standing_one() -> None:
    """What is enqueued comes first, one for each request, on any path."""
    with FakeProvider(reply=Reply(text="standing")) as provider:
        client = RawClient(provider.url)
        provider.enqueue(Reply(text="first"), Reply(status=503), Reply(text="third"))
        answers = [client("/v1/chat/completions", chat()) for _ in range(4)]
        client.connection.close()
    assert [answer.status for answer in answers] == [200, 503, 200, 200]
    texts = [answers[i].json["choices"][0]["message"]["content"] for i in (0, 2, 3)]
    assert texts == ["first", "third", "standing"]


def test_reply_may_be_a_function_of_the_request() -> None:
    """It is given what was seen, and its reply is used."""

    def echo(seen: Seen) -> Reply:
        return Reply(text=f"{seen.method} {seen.path} {seen.body['messages'][0]['content']}")

    with FakeProvider(echo) as provider:
        client = RawClient(provider.url)
        answer = client("/v1/chat/completions", chat()).json
        client.connection.close()
    text = answer["choices"][0]["message"]["content"]
    assert text == "POST /v1/chat/completions three small words"


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda seen: 1 / 0, "ZeroDivisionError"),
        (lambda seen: "text", "answered with a Reply, not 'text'"),
    ],
)
def test_failing_reply_function_is_a_500_that_says_so(function: Any, told: str) -> None:
    """The mistake is in the test, and should be seen there, at once and without retries."""
    with (
        FakeProvider(function) as provider,
        openai.OpenAI(base_url=provider.openai_url, api_key="test") as client,
    ):
        with pytest.raises(openai.InternalServerError, match=told):
            client.chat.completions.create(**chat())
        assert len(provider.requests) == 1


def test_enqueue_takes_replies_only(provider: FakeProvider, raw: RawClient) -> None:
    """Anything else is refused when it is given, and nothing is enqueued."""
    with pytest.raises(TypeError, match="with a Reply, not 'text'"):
        provider.enqueue(Reply(status=500), "text")  # type: ignore[arg-type]
    assert raw("/v1/models").status == 200


def test_requests_are_seen_without_their_keys(provider: FakeProvider, raw: RawClient) -> None:
    """Method, path, query, headers, body, model, status and usage; credentials are redacted."""
    keys = {"Authorization": "Bearer secret", "x-api-key": "secret", "X-Team": "blue"}
    answer = raw("/v1/chat/completions?trace=1", chat(), headers=keys)
    raw("/v1/models")
    first, second = provider.requests
    assert (first.method, first.path, first.query) == (
        "POST",
        "/v1/chat/completions",
        {"trace": "1"},
    )
    assert (first.headers["authorization"], first.headers["x-api-key"]) == ("[redacted]",) * 2
    assert first.headers["x-team"] == "blue"
    assert "secret" not in repr(provider.requests)
    assert (first.body, first.model) == (chat(), "gpt-4o-mini")
    assert (first.status, first.usage) == (200, answer.json["usage"])
    assert (second.method, second.body, second.model, second.usage) == ("GET", None, None, None)


def test_served_adds_up_by_model(provider: FakeProvider, raw: RawClient) -> None:
    """Requests, input and output, in all and for each model that answered."""
    provider.enqueue(
        Reply(input_tokens=10, output_tokens=1),
        Reply(input_tokens=20, output_tokens=2, model="served-instead"),
        Reply(status=500),
    )
    for _ in range(3):
        raw("/v1/chat/completions", chat())
    raw("/v1/embeddings", {"model": "gpt-4o-mini", "input": "two words"})
    mini, other = Served(2, 12, 1), Served(1, 20, 2)
    assert provider.served == Served(
        3, 32, 3, by_model={"gpt-4o-mini": mini, "served-instead": other}
    )


def test_clear_forgets(provider: FakeProvider, raw: RawClient) -> None:
    """Requests, sums and the queue; also what a stream begun before tells afterwards."""
    held = threading.Event()
    provider.enqueue(Reply(hold_after=(0, held)), Reply(status=500))
    raw.connection.request("POST", "/v1/messages", stream_request())
    response = raw.connection.getresponse()
    assert b"message_start" in response.read1()
    assert provider.served.requests == 1
    provider.clear()
    held.set()
    response.read()
    assert (provider.requests, provider.served) == ([], Served())
    assert raw("/v1/models").status == 200


def stream_request() -> bytes:
    """The body of a streamed request to Anthropic."""
    return b'{"model": "m", "max_tokens": 9, "messages": [], "stream": true}'


def test_remember_bounds_the_requests_but_not_the_sums() -> None:
    """A benchmark does not fill the memory."""
    with FakeProvider(Reply(input_tokens=1, output_tokens=1), remember=2) as provider:
        client = RawClient(provider.url)
        for number in range(5):
            client(f"/v1/chat/completions?n={number}", chat())
        client.connection.close()
        assert [seen.query["n"] for seen in provider.requests] == ["3", "4"]
        assert provider.served.requests == 5


def test_wait_until_gives_up(provider: FakeProvider) -> None:
    """A condition that is never met is an error that says so."""
    with pytest.raises(TimeoutError, match="0 requests did not meet"):
        provider.wait_until(lambda seen: bool(seen), timeout=0.01)


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/v1/chat/completions", {"messages": []}, "'model'"),
        ("/v1/chat/completions", {"model": "m"}, "'messages'"),
        ("/v1/embeddings", {"model": "m"}, "'input'"),
        ("/v1/messages", {"model": "m", "messages": []}, "'max_tokens'"),
        ("/v1/chat/completions", b"{not json", "not a JSON object"),
        ("/v1/chat/completions", b"[1]", "not a JSON object"),
    ],
)
def test_bad_requests_are_refused(raw: RawClient, path: str, body: Any, told: str) -> None:
    """A client, or a wrapper of it, that sends nonsense is told."""
    answer = raw(path, body)
    assert answer.status == 400
    assert told in answer.json["error"]["message"]


@pytest.mark.parametrize(
    ("status", "by_openai_type", "by_anthropic_type"),
    [
        (400, openai.BadRequestError, "invalid_request_error"),
        (401, openai.AuthenticationError, "authentication_error"),
        (404, openai.NotFoundError, "not_found_error"),
        (429, openai.RateLimitError, "rate_limit_error"),
        (500, openai.InternalServerError, "api_error"),
        (529, openai.InternalServerError, "overloaded_error"),
    ],
)
def test_errors_are_in_the_shape_of_the_provider(
    provider: FakeProvider,
    by_openai: Call,
    raw: RawClient,
    status: int,
    by_openai_type: type[openai.APIStatusError],
    by_anthropic_type: str,
) -> None:
    """Each SDK makes its own error of it, with the scripted message."""
    reply = Reply(status=status, text="scripted", headers={"retry-after": "0"})
    provider.enqueue(reply, reply)
    with pytest.raises(by_openai_type, match="scripted") as caught:
        by_openai(lambda client: client.chat.completions.create(**chat()))
    assert caught.value.response.headers["retry-after"] == "0"
    answer = raw("/v1/messages", message())
    assert answer.status == status
    assert answer.json == {
        "type": "error",
        "error": {"type": by_anthropic_type, "message": "scripted"},
    }


@pytest.mark.parametrize(
    ("status", "told"), [(429, "Too Many Requests"), (529, "Overloaded"), (599, "Error")]
)
def test_errors_without_a_text_say_what_the_status_means(
    provider: FakeProvider, raw: RawClient, status: int, told: str
) -> None:
    """Statuses that HTTP has no phrase for included."""
    provider.enqueue(Reply(status=status))
    assert raw("/v1/messages", message()).json["error"]["message"] == told


def test_unknown_paths_are_not_found(raw: RawClient) -> None:
    """In the shape of whoever asks; a known path by the wrong method too."""
    for path, method in (("/v2/anything", "POST"), ("/v1/messages", "GET"), ("/", "DELETE")):
        answer = raw(path, {}, method)
        assert answer.status == 404
        assert path in answer.json["error"]["message"]
    answer = raw("/v1/files", headers={"anthropic-version": "2023-06-01"})
    assert answer.json["error"]["type"] == "not_found_error"


def test_retries_of_the_sdk_are_seen_one_by_one(provider: FakeProvider) -> None:
    """Two refusals and a success are one call and three requests."""
    again = Reply(status=429, headers={"retry-after-ms": "1"})
    provider.enqueue(again, again)
    with openai.OpenAI(base_url=provider.openai_url, api_key="test", max_retries=2) as client:
        client.chat.completions.create(**chat())
    assert [seen.status for seen in provider.requests] == [429, 429, 200]
    assert provider.served.requests == 1


def test_client_that_leaves_a_stream_is_noticed(provider: FakeProvider) -> None:
    """Nothing is printed, the request is marked, and what it was not told is not served."""
    held = threading.Event()
    provider.enqueue(Reply(hold_after=(1, held)))
    with openai.OpenAI(base_url=provider.openai_url, api_key="test") as client:
        stream = client.chat.completions.create(
            **chat(stream=True, stream_options={"include_usage": True})
        )
        next(stream)
        stream.close()
    (seen,) = provider.wait_until(lambda seen: seen[0].disconnected)
    assert (seen.status, seen.usage) == (200, None)
    assert provider.served.requests == 0


def test_client_that_leaves_before_the_head_is_noticed(provider: FakeProvider) -> None:
    """A timeout of the client's, seen from the other side."""
    provider.enqueue(Reply(latency=LONG))
    with (
        openai.OpenAI(
            base_url=provider.openai_url, api_key="test", timeout=0.1, max_retries=0
        ) as client,
        pytest.raises(openai.APITimeoutError),
    ):
        client.chat.completions.create(**chat())
    (seen,) = provider.wait_until(lambda seen: seen[0].disconnected)
    assert seen.status is None


def test_a_client_that_reads_everything_is_not_disconnected(
    provider: FakeProvider, by_openai: Call
) -> None:
    """Closing after the last event is no disconnection, though the body's end was not read."""
    for _ in range(20):
        by_openai(lambda client: client.chat.completions.create(**chat(stream=True)))
    assert not any(seen.disconnected for seen in provider.requests)


@pytest.mark.parametrize(
    "reply",
    [Reply(latency=LONG), Reply(hold=threading.Event()), Reply(hold_after=(1, threading.Event()))],
    ids=["latency", "hold", "hold_after"],
)
def test_close_is_quick_whatever_goes_on(reply: Reply) -> None:
    """Held clients, idle ones and streams are all let go at once, and the port is free again."""
    provider = FakeProvider(reply)
    port = int(provider.url.rpartition(":")[2])
    idle = socket.create_connection(("127.0.0.1", port))
    busy = RawClient(provider.url)
    busy.connection.request("POST", "/v1/messages", stream_request())
    provider.wait_until(lambda seen: len(seen) == 1)
    started = time.monotonic()
    provider.close()
    assert time.monotonic() - started < 0.5
    assert idle.recv(1) == b""
    idle.close()
    busy.connection.close()
    assert not provider.requests[0].disconnected
    with FakeProvider(port=port) as again:
        assert again.url == provider.url
    provider.close()


def test_port_that_is_taken(provider: FakeProvider) -> None:
    """The system's own error, when it is made."""
    with pytest.raises(OSError, match=r"(?i)address|in use"):
        FakeProvider(port=int(provider.url.rpartition(":")[2]))


def test_many_threads_at_once(provider: FakeProvider) -> None:
    """Every request is answered and counted once."""

    def work(number: int) -> None:
        client = RawClient(provider.url)
        for _ in range(50):
            assert client("/v1/chat/completions", chat(model=f"m{number % 4}")).status == 200
            assert client("/v1/messages", message(stream=True)).events[-1]["type"]
        client.connection.close()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    words = provider.requests[0].usage["completion_tokens"]
    assert len(provider.requests) == 1600
    served = provider.served
    assert (served.requests, served.input_tokens) == (1600, 4800)
    assert served.output_tokens == 1600 * words
    assert sum(own.requests for own in served.by_model.values()) == 1600


def test_scripted_bodies_may_tell_a_usage(provider: FakeProvider, raw: RawClient) -> None:
    """An endpoint this provider does not know can be metered too."""
    body = b'{"answers": [], "usage": {"input_tokens": 5, "output_tokens": 2}}'
    provider.enqueue(Reply(body=body))
    assert raw("/v1/decisions", {"model": "m"}).content == body
    assert provider.requests[0].usage == {"input_tokens": 5, "output_tokens": 2}
    assert provider.served == Served(1, 5, 2, by_model={"m": Served(1, 5, 2)})
