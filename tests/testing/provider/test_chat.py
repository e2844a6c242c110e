from __future__ import annotations

import base64
import json
import struct
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from quotaguard.testing.provider import FakeProvider, Reply
from tests.testing.provider.calls import Call, RawClient, chat

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    },
}


class City(BaseModel):
    """What structured output is asked for."""

    name: str
    people: int


def test_completion_says_what_the_reply_says(provider: FakeProvider, by_openai: Call) -> None:
    """Text, every token figure and the requested model come back to the client."""
    provider.enqueue(
        Reply(
            text="four words of answer",
            input_tokens=12,
            output_tokens=7,
            cached_tokens=5,
            cache_write_tokens=2,
            reasoning_tokens=3,
        )
    )
    answer = by_openai(lambda client: client.chat.completions.create(**chat()))
    assert answer.choices[0].message.content == "four words of answer"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "gpt-4o-mini"
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (12, 7, 19)
    assert usage.prompt_tokens_details.cached_tokens == 5
    assert usage.prompt_tokens_details.to_dict()["cache_write_tokens"] == 2
    assert usage.completion_tokens_details.reasoning_tokens == 3


def test_usage_follows_the_words_when_no_figures_are_given(by_openai: Call) -> None:
    """One token for each word of the request's text, and one for each word of the answer."""
    answer = by_openai(lambda client: client.chat.completions.create(**chat()))
    assert answer.usage.prompt_tokens == 3
    assert answer.usage.completion_tokens == len(answer.choices[0].message.content.split())


def test_stream_tells_usage_in_a_chunk_without_choices(
    provider: FakeProvider, by_openai: Call
) -> None:
    """With `include_usage` the last chunk has the usage and no choices; the others have none."""
    provider.enqueue(Reply(text="three small words", input_tokens=12, output_tokens=7))
    chunks = by_openai(
        lambda client: client.chat.completions.create(
            **chat(stream=True, stream_options={"include_usage": True})
        )
    )
    *others, last = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in others) == "three small words"
    assert [chunk.usage for chunk in others] == [None] * len(others)
    assert others[-1].choices[0].finish_reason == "stop"
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (12, 7)
    assert provider.requests[0].usage["total_tokens"] == 19


def test_stream_tells_no_usage_unasked(provider: FakeProvider, by_openai: Call) -> None:
    """Without `include_usage` every chunk has a choice, and nothing was reported."""
    chunks = by_openai(lambda client: client.chat.completions.create(**chat(stream=True)))
    assert all(len(chunk.choices) == 1 for chunk in chunks)
    assert provider.requests[0].usage is None
    assert provider.served.requests == 0


def test_stream_on_the_wire(raw: RawClient) -> None:
    """The bytes: a null usage on each chunk when asked for, no such field else, `[DONE]` last."""
    asked = raw("/v1/chat/completions", chat(stream=True, stream_options={"include_usage": True}))
    assert asked.headers["content-type"].startswith("text/event-stream")
    *chunks, usage, done = asked.events
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert all(chunk["usage"] is None for chunk in chunks)
    unasked = raw("/v1/chat/completions", chat(stream=True))
    assert not any("usage" in chunk for chunk in unasked.events[:-1])


def test_n_gives_so_many_choices(by_openai: Call) -> None:
    """`n` choices come back, and their output is added up."""
    answer = by_openai(lambda client: client.chat.completions.create(**chat(n=3)))
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    words = len(answer.choices[0].message.content.split())
    assert answer.usage.completion_tokens == 3 * words


def test_n_choices_are_streamed_interleaved(provider: FakeProvider, by_openai: Call) -> None:
    """Each choice has its own role, text and finish."""
    provider.enqueue(Reply(text="three small words"))
    chunks = by_openai(lambda client: client.chat.completions.create(**chat(n=2, stream=True)))
    texts = {0: "", 1: ""}
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == {0: "three small words", 1: "three small words"}
    assert [chunk.choices[0].index for chunk in chunks[:4]] == [0, 1, 0, 1]


def test_tool_calls_come_whole(provider: FakeProvider, by_openai: Call) -> None:
    """Tool calls have the names and arguments of the reply, and no text stands beside them."""
    calls: tuple[tuple[str, dict[str, str]], ...] = (("weather", {"city": "Bern"}), ("time", {}))
    provider.enqueue(Reply(tool_calls=calls))
    answer = by_openai(lambda client: client.chat.completions.create(**chat(tools=[WEATHER])))
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    got = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls]
    assert [(name, json.loads(arguments)) for name, arguments in got] == list(calls)
    # A word for each name, two for the first one's arguments and one for the second's.
    assert answer.usage.completion_tokens == 5


def test_tool_calls_come_in_deltas(provider: FakeProvider) -> None:
    """The SDK puts streamed tool calls together again."""
    provider.enqueue(Reply(tool_calls=(("weather", {"city": "Bern"}),), chunks=4))
    url = provider.openai_url
    with (
        openai.OpenAI(base_url=url, api_key="test") as client,
        stream_of(client)(**chat(tools=[WEATHER])) as stream,
    ):
        final = stream.get_final_completion()
    call = final.choices[0].message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "weather",
        {"city": "Bern"},
    )
    assert final.choices[0].finish_reason == "tool_calls"


def stream_of(client: openai.OpenAI) -> Any:
    """`chat.completions.stream`, which was in beta before openai 1.92."""
    stable = getattr(client.chat.completions, "stream", None)
    return stable or client.beta.chat.completions.stream


def test_parse_gets_an_object_that_fits(by_openai: Call) -> None:
    """Structured output asked for and no text scripted: the answer fits the schema."""

    def use(client: Any) -> Any:
        stable = getattr(client.chat.completions, "parse", None)
        parse = stable or client.beta.chat.completions.parse
        return parse(**chat(response_format=City))

    answer = by_openai(use)
    assert isinstance(answer.choices[0].message.parsed, City)


def test_json_mode_answers_json(by_openai: Call) -> None:
    """`json_object` asks for no schema, and still gets JSON."""
    asked = chat(response_format={"type": "json_object"})
    answer = by_openai(lambda client: client.chat.completions.create(**asked))
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_maximum_is_hard(provider: FakeProvider, by_openai: Call, field: str) -> None:
    """Neither the counted nor the scripted output is ever above the request's maximum."""
    provider.enqueue(Reply(text="far more words than two"), Reply(output_tokens=900))
    use = lambda client: client.chat.completions.create(**chat(**{field: 2}))  # noqa: E731
    counted, scripted = by_openai(use), by_openai(use)
    assert counted.choices[0].message.content == "far more"
    for answer in (counted, scripted):
        assert answer.usage.completion_tokens == 2
        assert answer.choices[0].finish_reason == "length"


def test_a_scripted_figure_outweighs_the_words(raw: RawClient, provider: FakeProvider) -> None:
    """Text that is said to cost no more than the maximum is whole, however many its words."""
    provider.enqueue(Reply(text="one two three four", output_tokens=2))
    choice = raw("/v1/chat/completions", chat(max_tokens=2)).json["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one two three four", "stop")


def test_the_larger_of_two_maxima_holds(raw: RawClient, provider: FakeProvider) -> None:
    """`max_tokens` and `max_completion_tokens` may disagree."""
    provider.enqueue(Reply(output_tokens=900))
    answer = raw("/v1/chat/completions", chat(max_tokens=2, max_completion_tokens=5))
    assert answer.json["usage"]["completion_tokens"] == 5


@pytest.mark.parametrize(
    ("prompt", "choices", "tokens"),
    [
        ("three small words", 1, 3),
        (["one", "and two"], 2, 3),
        ([1, 2, 3, 4], 1, 4),
        ([[1, 2], [3]], 2, 3),
    ],
)
def test_legacy_completion(by_openai: Call, prompt: Any, choices: int, tokens: int) -> None:
    """A prompt is text or tokens, or a list of them with a choice for each."""
    asked = {"model": "gpt-3.5-turbo-instruct", "prompt": prompt}
    answer = by_openai(lambda client: client.completions.create(**asked))
    assert len(answer.choices) == choices
    assert answer.usage.prompt_tokens == tokens
    assert answer.usage.completion_tokens == choices * len(answer.choices[0].text.split())


def test_legacy_completion_stream(provider: FakeProvider, by_openai: Call) -> None:
    """The chunks make up the text; the usage comes last, if asked for."""
    provider.enqueue(Reply(text="three small words", input_tokens=12, output_tokens=7))
    asked = {"model": "m", "prompt": "p", "stream_options": {"include_usage": True}}
    *chunks, last = by_openai(lambda client: client.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "three small words"
    assert (last.choices, last.usage.total_tokens) == ([], 19)


def test_embeddings(by_openai: Call) -> None:
    """One vector for each input, read by the SDK from the base64 it asks for by itself."""
    asked = {"model": "text-embedding-3-small", "input": ["one", "and two"]}
    answer = by_openai(lambda client: client.embeddings.create(**asked))
    assert [len(item.embedding) for item in answer.data] == [8, 8]
    assert answer.data[0].embedding[0] == 1.0
    assert answer.usage.to_dict() == {"prompt_tokens": 3, "total_tokens": 3}


@pytest.mark.parametrize(
    ("given", "vectors", "tokens"),
    [("three small words", 1, 3), ([1, 2, 3, 4], 1, 4), ([[1, 2], [3]], 2, 3)],
)
def test_embeddings_of_tokens_and_text(
    raw: RawClient, given: Any, vectors: int, tokens: int
) -> None:
    """Token arrays count their length; floats are plain lists."""
    answer = raw("/v1/embeddings", {"model": "m", "input": given, "dimensions": 3}).json
    assert [len(item["embedding"]) for item in answer["data"]] == [3] * vectors
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_embeddings_in_base64(raw: RawClient) -> None:
    """Base64 holds the same floats, little-endian and single."""
    asked = {"model": "m", "input": "text", "dimensions": 3}
    floats = raw("/v1/embeddings", asked).json["data"][0]["embedding"]
    packed = raw("/v1/embeddings", {**asked, "encoding_format": "base64"}).json
    content = base64.b64decode(packed["data"][0]["embedding"])
    assert list(struct.unpack("<3f", content)) == floats


def test_models(by_openai: Call) -> None:
    """The models can be listed, and any one looked up."""
    listed = by_openai(lambda client: client.models.list())
    assert "gpt-4o-mini" in [model.id for model in listed.data]
    one = by_openai(lambda client: client.models.retrieve("gpt-9"))
    assert one.id == "gpt-9"
