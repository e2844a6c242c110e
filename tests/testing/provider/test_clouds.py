"""The same APIs as Azure, Bedrock and Vertex serve them."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any

import openai
import pytest
from anthropic.lib.bedrock import AnthropicBedrock, AsyncAnthropicBedrock
from anthropic.lib.vertex import AnthropicVertex, AsyncAnthropicVertex

from quotaguard.testing.provider import FakeProvider, Reply
from tests.testing.provider.calls import Call, RawClient, caller, chat, message

CHAT = "/openai/deployments/my%20gpt/chat/completions?api-version=2024-10-21"
MODEL = "anthropic.claude-test-v1:0"
INVOKE = "/model/anthropic.claude-test-v1%3A0/invoke"


@pytest.fixture(params=["sync", "async"])
def by_azure(request: pytest.FixtureRequest, provider: FakeProvider) -> Call:
    """Calls the provider with Azure's client of OpenAI's SDK."""
    return caller(
        openai.AzureOpenAI,
        openai.AsyncAzureOpenAI,
        request.param,
        azure_endpoint=provider.url,
        api_key="test",
        api_version="2024-10-21",
        max_retries=0,
    )


@pytest.fixture(params=["sync", "async"])
def by_bedrock(request: pytest.FixtureRequest, provider: FakeProvider) -> Call:
    """Calls the provider with Bedrock's client of Anthropic's SDK."""
    pytest.importorskip("botocore")
    return caller(
        AnthropicBedrock,
        AsyncAnthropicBedrock,
        request.param,
        base_url=provider.url,
        aws_access_key="test",
        aws_secret_key="test",
        aws_region="us-east-1",
        max_retries=0,
    )


@pytest.fixture(params=["sync", "async"])
def by_vertex(request: pytest.FixtureRequest, provider: FakeProvider) -> Call:
    """Calls the provider with Vertex's client of Anthropic's SDK."""
    pytest.importorskip("google.auth")
    return caller(
        AnthropicVertex,
        AsyncAnthropicVertex,
        request.param,
        base_url=provider.openai_url,
        access_token="test",
        project_id="project",
        region="us-east5",
        max_retries=0,
    )


def test_azure_takes_the_deployment_from_the_path(provider: FakeProvider, by_azure: Call) -> None:
    """The deployment is the model, and the key does not show."""
    answer = by_azure(lambda client: client.chat.completions.create(**chat(model="my-gpt")))
    assert answer.model == "my-gpt"
    seen = provider.requests[0]
    assert seen.path == "/openai/deployments/my-gpt/chat/completions"
    assert seen.query == {"api-version": "2024-10-21"}
    assert (seen.model, seen.headers["api-key"]) == ("my-gpt", "[redacted]")


def test_azure_embeddings_and_completions(by_azure: Call) -> None:
    """The other endpoints that have deployments."""
    embedded = by_azure(lambda client: client.embeddings.create(model="e", input="two words"))
    assert embedded.usage.prompt_tokens == 2
    completed = by_azure(lambda client: client.completions.create(model="c", prompt="two words"))
    assert completed.usage.prompt_tokens == 2


def test_azure_responses_have_no_deployment(raw: RawClient) -> None:
    """There the model is in the body."""
    asked = {"model": "my-gpt", "input": "two words"}
    answer = raw("/openai/responses?api-version=2025-04-01-preview", asked).json
    assert (answer["model"], answer["usage"]["input_tokens"]) == ("my-gpt", 2)


def test_azure_stream_begins_with_a_filter_result(raw: RawClient) -> None:
    """Azure's first chunk has no choices either: only the last one with none has the usage."""
    asked = chat(stream=True, stream_options={"include_usage": True})
    first, *others, usage, done = raw(CHAT, asked).events
    assert (first["choices"], first["usage"]) == ([], None)
    assert "prompt_filter_results" in first
    assert all(chunk["choices"] for chunk in others)
    assert (usage["choices"], usage["usage"]["prompt_tokens"], done) == ([], 3, "[DONE]")
    assert others[0]["model"] == "my gpt"


def test_azure_error(raw: RawClient, provider: FakeProvider) -> None:
    """The code of an error is its status, as text."""
    provider.enqueue(Reply(status=429, text="slow down"))
    assert raw(CHAT, chat()).json == {"error": {"code": "429", "message": "slow down"}}


def test_bedrock_message(provider: FakeProvider, by_bedrock: Call) -> None:
    """The model is in the path, percent-encoded; the body is Anthropic's."""
    answer = by_bedrock(lambda client: client.messages.create(**message(model=MODEL)))
    assert (answer.model, answer.usage.input_tokens) == (MODEL, 3)
    assert provider.requests[0].headers["authorization"] == "[redacted]"


def test_bedrock_stream(provider: FakeProvider, by_bedrock: Call) -> None:
    """The SDK reads the binary stream, checksums and all."""
    provider.enqueue(Reply(text="Grüße an alle", input_tokens=12, output_tokens=7))
    asked = message(model=MODEL, stream=True)
    events = by_bedrock(lambda client: client.messages.create(**asked))
    text = "".join(event.delta.text for event in events if event.type == "content_block_delta")
    assert text == "Grüße an alle"
    assert events[-2].usage.output_tokens == 7
    assert provider.served.input_tokens == 12


def frames(content: bytes) -> list[tuple[dict[str, str], Any]]:
    """Headers and payload of each frame of AWS's event stream, both checksums verified."""
    found = []
    while content:
        total, head, prelude_crc = struct.unpack(">III", content[:12])
        frame, content = content[:total], content[total:]
        assert zlib.crc32(frame[:8]) == prelude_crc
        assert zlib.crc32(frame[:-4]) == struct.unpack(">I", frame[-4:])[0]
        packed, headers = frame[12 : 12 + head], {}
        while packed:
            name, rest = packed[1 : 1 + packed[0]].decode(), packed[1 + packed[0] :]
            kind, size = struct.unpack(">BH", rest[:3])
            assert kind == 7
            headers[name], packed = rest[3 : 3 + size].decode(), rest[3 + size :]
        found.append((headers, json.loads(frame[12 + head : -4])))
    return found


def test_bedrock_frames(raw: RawClient) -> None:
    """Each frame is a chunk that carries one of Anthropic's events in base64."""
    answer = raw(f"{INVOKE}-with-response-stream", message())
    assert answer.headers["content-type"] == "application/vnd.amazon.eventstream"
    found = frames(answer.content)
    assert {headers[":event-type"] for headers, _ in found} == {"chunk"}
    events = [json.loads(base64.b64decode(payload["bytes"])) for _, payload in found]
    assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]


def test_bedrock_errors(raw: RawClient, provider: FakeProvider) -> None:
    """A plain message with the error's name in a header; in a stream, an exception frame."""
    provider.enqueue(Reply(status=429, text="slow down"), Reply(error_after=1))
    refused = raw(INVOKE, message())
    assert refused.json == {"message": "slow down"}
    assert refused.headers["x-amzn-errortype"] == "ThrottlingException"
    *_, (headers, payload) = frames(raw(f"{INVOKE}-with-response-stream", message()).content)
    assert headers[":message-type"] == "exception"
    assert headers[":exception-type"] == "internalServerException"
    assert "error" in payload["message"]


@pytest.mark.parametrize("stream", [False, True])
def test_vertex(provider: FakeProvider, by_vertex: Call, stream: bool) -> None:
    """The path says the model, and whether the answer is streamed."""
    provider.enqueue(Reply(input_tokens=12, output_tokens=7))
    asked = message(model="claude-test@20250101", stream=stream)
    answer = by_vertex(lambda client: client.messages.create(**asked))
    model = answer[0].message.model if stream else answer.model
    assert model == "claude-test@20250101"
    specifier = "streamRawPredict" if stream else "rawPredict"
    assert provider.requests[0].path.endswith(f":{specifier}")
    assert (provider.served.input_tokens, provider.served.output_tokens) == (12, 7)


def test_vertex_counts_tokens(by_vertex: Call) -> None:
    """Counting has a path of its own, with the model in the body."""
    asked = message()
    counted = by_vertex(
        lambda client: client.messages.count_tokens(
            model=asked["model"], messages=asked["messages"]
        )
    )
    assert counted.input_tokens == 3


def test_any_prefix_is_tolerated(raw: RawClient) -> None:
    """Gateways put things before the paths, and a base URL may lack its `/v1`."""
    for prefix in ("", "/v1", "/gateway/team/openai/v1"):
        assert raw(f"{prefix}/chat/completions", chat()).json["object"] == "chat.completion"
    assert raw("/anthropic/v1/messages?beta=true", message()).json["type"] == "message"
