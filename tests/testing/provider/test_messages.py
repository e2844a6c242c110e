from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from pydantic import BaseModel

from quotaguard.testing.provider import FakeProvider, Reply
from tests.testing.provider.calls import Call, RawClient, message


class City(BaseModel):
    """What structured output is asked for."""

    name: str
    people: int


def test_message_says_what_the_reply_says(provider: FakeProvider, by_anthropic: Call) -> None:
    """Text and every token figure come back; `input_tokens` is what no cache had a part in."""
    provider.enqueue(
        Reply(text="the answer", input_tokens=12, output_tokens=7, cached_tokens=5,
              cache_write_tokens=2, reasoning_tokens=3)
    )  # fmt: skip
    answer = by_anthropic(lambda client: client.messages.create(**message()))
    assert answer.content[0].text == "the answer"
    assert (answer.stop_reason, answer.model) == ("end_turn", "claude-test")
    usage = answer.usage
    assert (usage.input_tokens, usage.output_tokens) == (5, 7)
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (5, 2)
    assert usage.to_dict()["output_tokens_details"] == {"thinking_tokens": 3}
    served = provider.served
    assert (served.input_tokens, served.output_tokens) == (12, 7)


def test_stream_has_the_events_of_the_api_in_order(raw: RawClient, provider: FakeProvider) -> None:
    """The usage comes in two parts: the input at the start, the output at the end."""
    provider.enqueue(Reply(text="two words", input_tokens=12, output_tokens=7, cached_tokens=4))
    answer = raw("/v1/messages", message(stream=True))
    events = answer.events
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    names = [line[7:] for line in answer.content.decode().split("\n") if line[:7] == "event: "]
    assert names == [event["type"] for event in events]
    begun = events[0]["message"]["usage"]
    assert (begun["input_tokens"], begun["cache_read_input_tokens"]) == (8, 4)
    assert begun["output_tokens"] == 1
    assert events[-2]["usage"] == {"output_tokens": 7}
    assert provider.requests[0].usage == {**begun, "output_tokens": 7}
    assert provider.served.input_tokens == 12


def test_stream_through_the_sdk(provider: FakeProvider, by_anthropic: Call) -> None:
    """The SDK's raw stream yields the same events, pings left out."""
    provider.enqueue(Reply(text="two words"))
    events = by_anthropic(lambda client: client.messages.create(**message(stream=True)))
    assert [event.type for event in events].count("content_block_delta") == 2
    assert events[-1].type == "message_stop"


@pytest.mark.parametrize("chunks", [None, 1, 5])
def test_stream_is_put_together_by_the_sdk(provider: FakeProvider, chunks: int | None) -> None:
    """Thinking, text, tool calls and usage all survive the SDK's accumulation."""
    calls = (("weather", {"city": "Bern"}),)
    provider.enqueue(
        Reply(text="two words", thinking="let me see", tool_calls=calls, chunks=chunks,
              input_tokens=12, output_tokens=7)
    )  # fmt: skip
    with (
        anthropic.Anthropic(base_url=provider.anthropic_url, api_key="test") as client,
        client.messages.stream(**message()) as stream,
    ):
        final: Any = stream.get_final_message()
    thinking, text, call = final.content
    assert (thinking.thinking, text.text) == ("let me see", "two words")
    assert (call.name, call.input) == ("weather", {"city": "Bern"})
    assert final.stop_reason == "tool_use"
    assert (final.usage.input_tokens, final.usage.output_tokens) == (12, 7)


def test_tool_calls_come_whole(provider: FakeProvider, by_anthropic: Call) -> None:
    """Tool calls have the names and arguments of the reply, and no text stands beside them."""
    provider.enqueue(Reply(tool_calls=(("weather", {"city": "Bern"}),)))
    answer = by_anthropic(lambda client: client.messages.create(**message()))
    assert [(block.type, block.name, block.input) for block in answer.content] == [
        ("tool_use", "weather", {"city": "Bern"})
    ]
    assert answer.stop_reason == "tool_use"


@pytest.mark.parametrize(
    "asked",
    [
        {"output_config": {"format": {"type": "json_schema", "schema": City.model_json_schema()}}},
        {"output_format": {"type": "json_schema", "schema": City.model_json_schema()}},
    ],
)
def test_structured_output_fits(raw: RawClient, asked: dict[str, Any]) -> None:
    """Either way of asking for a schema gets an object that fits it."""
    answer = raw("/v1/messages", message(**asked)).json
    assert isinstance(City.model_validate_json(answer["content"][0]["text"]), City)


def test_parse_gets_an_object_that_fits(by_anthropic: Call) -> None:
    """The SDK's own `parse` is content with it."""

    def use(client: Any) -> Any:
        if not hasattr(client.messages, "parse"):
            pytest.skip("this SDK has no messages.parse")
        return client.messages.parse(**message(output_format=City))

    assert isinstance(by_anthropic(use).parsed_output, City)


def test_maximum_is_hard(provider: FakeProvider, by_anthropic: Call) -> None:
    """Output beyond `max_tokens` is cut, and said to be."""
    provider.enqueue(Reply(text="far more words than two"))
    answer = by_anthropic(lambda client: client.messages.create(**message(max_tokens=2)))
    assert (answer.content[0].text, answer.stop_reason) == ("far more", "max_tokens")
    assert answer.usage.output_tokens == 2


def test_beta_messages(by_anthropic: Call) -> None:
    """The beta resource speaks to the same endpoint."""
    answer = by_anthropic(lambda client: client.beta.messages.create(**message()))
    assert answer.usage.input_tokens == 3


def test_count_tokens_agrees_with_the_usage(provider: FakeProvider, by_anthropic: Call) -> None:
    """What is counted is what would be billed, and counting is not billed itself."""
    asked = message(system="four words of system")
    counted = by_anthropic(
        lambda client: client.messages.count_tokens(
            model=asked["model"], messages=asked["messages"], system=asked["system"]
        )
    )
    assert provider.served.requests == 0
    answer = by_anthropic(lambda client: client.messages.create(**asked))
    assert counted.input_tokens == answer.usage.input_tokens == 7


def test_text_blocks_are_counted_and_images_are_not(raw: RawClient) -> None:
    """The words of every text part are the input tokens."""
    image = {"type": "base64", "media_type": "image/png", "data": "many words in here"}
    parts = [{"type": "text", "text": "one two"}, {"type": "image", "source": image}]
    result = {"type": "tool_result", "tool_use_id": "t", "content": [parts[0]]}
    asked = message(messages=[{"role": "user", "content": [*parts, result]}])
    assert raw("/v1/messages", asked).json["usage"]["input_tokens"] == 4


def test_models(by_anthropic: Call) -> None:
    """Anthropic's client gets Anthropic's shape of the list of models."""
    listed = by_anthropic(lambda client: client.models.list())
    assert "claude-opus-5" in [model.id for model in listed.data]
    one = by_anthropic(lambda client: client.models.retrieve("claude-9"))
    assert (one.id, one.type) == ("claude-9", "model")


def test_text_beyond_ascii_is_sent_as_utf8(raw: RawClient, provider: FakeProvider) -> None:
    """As the providers do it: characters may fall across the pieces of a stream."""
    provider.enqueue(Reply(text="Grüße 👋🏽", chunks=3))
    content = raw("/v1/messages", message(stream=True)).content
    assert "üße".encode() in content or "ü".encode() in content
    assert json.dumps("ü")[1:-1].encode() not in content
