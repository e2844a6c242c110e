from __future__ import annotations

from typing import Any

import openai
import pytest
from pydantic import BaseModel

from quotaguard.testing.provider import FakeProvider, Reply
from tests.testing.provider.calls import Call, RawClient

needs_responses = pytest.mark.skipif(
    not hasattr(openai.OpenAI, "responses"), reason="this SDK has no Responses API"
)
ASKED: dict[str, Any] = {"model": "gpt-4o-mini", "input": "three small words"}


class City(BaseModel):
    """What structured output is asked for."""

    name: str
    people: int


@needs_responses
def test_response_says_what_the_reply_says(provider: FakeProvider, by_openai: Call) -> None:
    """Text and every token figure come back to the client."""
    provider.enqueue(
        Reply(text="the answer", input_tokens=12, output_tokens=7, cached_tokens=5,
              cache_write_tokens=2, reasoning_tokens=3)
    )  # fmt: skip
    answer = by_openai(lambda client: client.responses.create(**ASKED))
    assert (answer.status, answer.output_text, answer.model) == (
        "completed",
        "the answer",
        "gpt-4o-mini",
    )
    assert answer.usage.to_dict() == {
        "input_tokens": 12,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2},
        "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 3},
        "total_tokens": 19,
    }
    assert [item.type for item in answer.output] == ["reasoning", "message"]


def test_stream_has_the_events_of_the_api_in_order(raw: RawClient, provider: FakeProvider) -> None:
    """Every event, numbered; the usage is in the last, and null in those before."""
    provider.enqueue(Reply(text="two words", input_tokens=12, output_tokens=7))
    events = raw("/v1/responses", {**ASKED, "stream": True}).events
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(10))
    assert events[0]["response"]["usage"] is None
    assert events[-1]["response"]["usage"]["total_tokens"] == 19
    assert events[-1]["response"]["output"] == [events[-2]["item"]]


@needs_responses
@pytest.mark.parametrize("chunks", [None, 1, 5])
def test_stream_is_put_together_by_the_sdk(provider: FakeProvider, chunks: int | None) -> None:
    """Reasoning, text and tool calls all survive the SDK's accumulation."""
    calls = (("weather", {"city": "Bern"}),)
    provider.enqueue(
        Reply(text="two words", thinking="let me see", tool_calls=calls, chunks=chunks)
    )
    with (
        openai.OpenAI(base_url=provider.openai_url, api_key="test") as client,
        client.responses.stream(**ASKED) as stream,
    ):
        final: Any = stream.get_final_response()
    reasoning, message, call = final.output
    assert reasoning.summary[0].text == "let me see"
    assert message.content[0].text == "two words"
    assert (call.name, call.arguments) == ("weather", '{"city": "Bern"}')
    assert final.usage.output_tokens_details.reasoning_tokens == 3


@needs_responses
def test_parse_gets_an_object_that_fits(by_openai: Call) -> None:
    """Structured output asked for and no text scripted: the answer fits the schema."""
    answer = by_openai(lambda client: client.responses.parse(**ASKED, text_format=City))
    assert isinstance(answer.output_parsed, City)


@pytest.mark.parametrize(
    ("reply", "status", "detail"),
    [
        (Reply(finish_reason="length"), "incomplete", "max_output_tokens"),
        (Reply(finish_reason="content_filter"), "incomplete", "content_filter"),
        (Reply(finish_reason="failed"), "failed", None),
        (Reply(output_tokens=900), "incomplete", "max_output_tokens"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_unhappy_endings(
    raw: RawClient, provider: FakeProvider, reply: Reply, status: str, detail: str | None,
    stream: bool,
) -> None:  # fmt: skip
    """A response may end incomplete or failed, with what it had used."""
    provider.enqueue(reply)
    answer = raw("/v1/responses", {**ASKED, "max_output_tokens": 20, "stream": stream})
    if stream:
        assert answer.events[-1]["type"] == f"response.{status}"
    body = answer.events[-1]["response"] if stream else answer.json
    assert body["status"] == status
    assert (body["incomplete_details"] or {}).get("reason") == detail
    assert (body["error"] is not None) == (status == "failed")
    assert 0 < body["usage"]["output_tokens"] <= 20
    assert provider.requests[0].usage == body["usage"]


@needs_responses
def test_background_response_is_retrieved_later(provider: FakeProvider, by_openai: Call) -> None:
    """It is queued without a usage, in progress for so many polls, and then complete with one."""
    provider.enqueue(Reply(input_tokens=12, output_tokens=7, polls=1))
    queued = by_openai(lambda client: client.responses.create(**ASKED, background=True))
    assert (queued.status, queued.usage, queued.output) == ("queued", None, [])
    found = [by_openai(lambda client: client.responses.retrieve(queued.id)) for _ in range(3)]
    assert [answer.status for answer in found] == ["in_progress", "completed", "completed"]
    assert [answer.usage and answer.usage.total_tokens for answer in found] == [None, 19, 19]
    assert [seen.usage is None for seen in provider.requests] == [True, True, False, False]
    served = provider.served
    assert (served.requests, served.input_tokens, served.output_tokens) == (1, 12, 7)


@needs_responses
def test_background_stream_can_be_resumed(provider: FakeProvider, by_openai: Call) -> None:
    """A stream that was cut is taken up again after the last event that came."""
    provider.enqueue(Reply(text="three small words", disconnect_after=1))
    seen: list[Any] = []
    with (
        openai.OpenAI(base_url=provider.openai_url, api_key="test") as client,
        client.responses.create(**ASKED, background=True, stream=True) as stream,
        pytest.raises(Exception, match=r"(?i)connection|peer|reset"),
    ):
        seen.extend(stream)
    assert [event.type for event in seen[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    last = seen[-1].sequence_number
    rest = by_openai(
        lambda client: client.responses.retrieve(
            seen[0].response.id, stream=True, starting_after=last
        )
    )
    assert rest[0].sequence_number == last + 1
    assert rest[-1].response.output_text == "three small words"
    assert provider.served.requests == 1


@needs_responses
def test_background_response_can_be_cancelled(provider: FakeProvider, by_openai: Call) -> None:
    """A cancelled response has no usage, then and later; a complete one cannot be cancelled."""
    provider.enqueue(Reply(polls=9))
    queued = by_openai(lambda client: client.responses.create(**ASKED, background=True))
    cancelled = by_openai(lambda client: client.responses.cancel(queued.id))
    found = by_openai(lambda client: client.responses.retrieve(queued.id))
    assert [answer.status for answer in (cancelled, found)] == ["cancelled", "cancelled"]
    assert found.usage is None
    done = by_openai(lambda client: client.responses.create(**ASKED))
    assert by_openai(lambda client: client.responses.cancel(done.id)).status == "completed"


def test_unknown_and_unstored_responses_are_not_found(raw: RawClient) -> None:
    """An id that was never given, or whose request said `store: false`, is a 404."""
    unstored = raw("/v1/responses", {**ASKED, "store": False}).json["id"]
    for response_id in (unstored, "resp_unknown"):
        answer = raw(f"/v1/responses/{response_id}")
        assert answer.status == 404
        assert response_id in answer.json["error"]["message"]


def test_retrieval_may_tell_another_usage(raw: RawClient, provider: FakeProvider) -> None:
    """The reply a retrieval is given decides how it travels, and may override its usage."""
    response_id = raw("/v1/responses", ASKED).json["id"]
    provider.enqueue(Reply(usage=None), Reply(status=500))
    assert raw(f"/v1/responses/{response_id}").json["usage"] is None
    assert raw(f"/v1/responses/{response_id}").status == 500


def test_compaction_has_a_usage(raw: RawClient, provider: FakeProvider) -> None:
    """The conversation comes back as one opaque item."""
    provider.enqueue(Reply(input_tokens=12, output_tokens=7))
    answer = raw("/v1/responses/compact", ASKED).json
    assert answer["object"] == "response.compaction"
    assert [item["type"] for item in answer["output"]] == ["compaction"]
    assert answer["usage"]["total_tokens"] == 19


@needs_responses
def test_compaction_through_the_sdk(by_openai: Call) -> None:
    """The SDK reads a compaction."""

    def use(client: Any) -> Any:
        if not hasattr(client.responses, "compact"):
            pytest.skip("this SDK has no compaction")
        return client.responses.compact(**ASKED)

    assert by_openai(use).usage.input_tokens == 3


def test_input_tokens_are_counted_without_being_used(
    raw: RawClient, provider: FakeProvider
) -> None:
    """A count is no usage."""
    answer = raw("/v1/responses/input_tokens", ASKED)
    assert answer.json == {"input_tokens": 3, "object": "response.input_tokens"}
    assert provider.served.requests == 0
