"""OpenAI's chat completions, legacy completions and embeddings: bodies and stream events."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator

from .answers import Answer, Event, Json

_DIMENSIONS, _MOST = 8, 65536


def true_usage(answer: Answer) -> Json:
    """The usage of a chat or legacy completion."""
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": answer.reply.cached_tokens,
            "cache_write_tokens": answer.reply.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": answer.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def chat_body(answer: Answer) -> Json:
    """A `chat.completion`."""
    message: Json = {"role": "assistant", "content": answer.text or None, "refusal": None}
    if answer.reply.tool_calls:
        message["tool_calls"] = [
            {
                "id": answer.id("call_", index),
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for index, name, arguments in answer.calls()
        ]
    else:
        message["content"] = answer.text
    return {
        **_head(answer, "chatcmpl-", "chat.completion"),
        "choices": [
            {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish}
            for index in range(answer.choices)
        ],
        **answer.usage(true_usage(answer)),
    }


def chat_events(answer: Answer) -> Iterator[Event]:
    """The `chat.completion.chunk`s of a stream: opening ones, content, usage if asked for."""
    deltas: list[Json] = [{"content": piece} for piece in answer.pieces(answer.text)]
    for number, name, arguments in answer.calls():
        call = {"index": number, "id": answer.id("call_", number), "type": "function"}
        deltas.append({"tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]})
        deltas += [
            {"tool_calls": [{"index": number, "function": {"arguments": piece}}]}
            for piece in answer.pieces(arguments)
        ]
    yield from _stream(
        answer,
        _head(answer, "chatcmpl-", "chat.completion.chunk"),
        [{"delta": {"role": "assistant", "content": "", "refusal": None}}],
        [{"delta": delta} for delta in deltas],
        {"delta": {}},
    )


def completion_body(answer: Answer) -> Json:
    """A `text_completion`."""
    return {
        **_head(answer, "cmpl-", "text_completion"),
        "choices": [
            {"index": index, "text": answer.text, "logprobs": None, "finish_reason": answer.finish}
            for index in range(answer.choices)
        ],
        **answer.usage(true_usage(answer)),
    }


def completion_events(answer: Answer) -> Iterator[Event]:
    """The `text_completion` chunks of a stream."""
    content = [{"text": piece} for piece in answer.pieces(answer.text)]
    yield from _stream(answer, _head(answer, "cmpl-", "text_completion"), [], content, {"text": ""})


def embedding_body(answer: Answer) -> Json:
    """Embeddings: unit vectors of the length asked for, as floats or base64; no output tokens."""
    asked = answer.request.get("dimensions")
    dimensions = min(asked, _MOST) if type(asked) is int and asked > 0 else _DIMENSIONS
    inputs = answer.request.get("input")
    count = len(inputs) if isinstance(inputs, list) and inputs and type(inputs[0]) is not int else 1
    vectors = (
        [float(place == index % dimensions) for place in range(dimensions)]
        for index in range(count)
    )
    in_base64 = answer.request.get("encoding_format") == "base64"
    tokens = answer.input_tokens
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()
                if in_base64
                else vector,
            }
            for index, vector in enumerate(vectors)
        ],
        "model": answer.model,
        **answer.usage({"prompt_tokens": tokens, "total_tokens": tokens}),
    }


def _head(answer: Answer, prefix: str, kind: str) -> Json:
    return {
        "id": answer.id(prefix),
        "object": kind,
        "created": answer.created,
        "model": answer.model,
        "system_fingerprint": "fp_quotaguard",
    }


def _stream(
    answer: Answer, head: Json, opening: list[Json], content: list[Json], finish: Json
) -> Iterator[Event]:
    """Every choice's opening and content in turn, how each finished, the usage, and the end."""
    options = answer.request.get("stream_options")
    asked = isinstance(options, dict) and options.get("include_usage") is True
    usage = answer.usage(true_usage(answer)) if asked else {}
    # The API puts a null usage on all chunks but the last when usage was asked for.
    tail: Json = {"usage": None} if usage else {}

    def chunks(part: Json, finish_reason: str | None = None) -> Iterator[Json]:
        for index in range(answer.choices):
            choice = {"index": index, **part, "logprobs": None, "finish_reason": finish_reason}
            yield {**head, "choices": [choice], **tail}

    if answer.flavour == "azure":
        filtered = [{"prompt_index": 0, "content_filter_results": {}}]
        blank = {"id": "", "object": "", "created": 0, "model": ""}
        first = {**blank, "choices": [], "prompt_filter_results": filtered, **tail}
        yield Event(first, opening=True)
    for part in opening:
        yield from (Event(chunk, opening=True) for chunk in chunks(part))
    for part in content:
        yield from (Event(chunk) for chunk in chunks(part))
    yield from (Event(chunk, closing=True) for chunk in chunks(finish, answer.finish))
    if usage:
        yield Event({**head, "choices": [], **usage}, usage=usage["usage"], closing=True)
    yield Event("[DONE]", closing=True)
