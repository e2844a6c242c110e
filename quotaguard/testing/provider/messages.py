"""Anthropic's Messages API: bodies and stream events."""

from __future__ import annotations

import json
from collections.abc import Iterator

from .answers import Answer, Event, Json

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def message_body(answer: Answer) -> Json:
    """A `message`."""
    return {
        **_head(answer),
        "content": _blocks(answer),
        "stop_reason": _STOP_REASONS.get(answer.finish, answer.finish),
        **answer.usage({**_usage(answer, answer.output_tokens), **_details(answer)}),
    }


def message_events(answer: Answer) -> Iterator[Event]:
    """The events of a streamed message; the usage comes in two parts, at its start and its end."""
    begun = answer.usage(_usage(answer, min(1, answer.output_tokens)))
    start = {"type": "message_start", "message": {**_head(answer), **begun}}
    yield _event(start, opening=True, usage=begun.get("usage"))
    started = False
    for index, block in enumerate(_blocks(answer)):
        blank, deltas = _in_pieces(answer, block)
        added = {"type": "content_block_start", "index": index, "content_block": blank}
        yield _event(added, opening=not started)
        if index == 0:
            yield _event({"type": "ping"}, opening=True)
        for delta in deltas:
            started = True
            yield _event({"type": "content_block_delta", "index": index, "delta": delta})
        yield _event({"type": "content_block_stop", "index": index})
    total = answer.usage({"output_tokens": answer.output_tokens, **_details(answer)})
    stop_reason = _STOP_REASONS.get(answer.finish, answer.finish)
    stop: Json = {"stop_reason": stop_reason, "stop_sequence": None}
    yield _event(
        {"type": "message_delta", "delta": stop, **total}, usage=total.get("usage"), closing=True
    )
    yield _event({"type": "message_stop"}, closing=True)


def _event(
    data: Json, *, opening: bool = False, usage: object = None, closing: bool = False
) -> Event:
    return Event(data, data["type"], opening, usage, closing)


def _head(answer: Answer) -> Json:
    return {
        "id": answer.id("msg_"),
        "type": "message",
        "role": "assistant",
        "model": answer.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def _usage(answer: Answer, output_tokens: int) -> Json:
    """`input_tokens` is what neither came from the cache nor was written to it."""
    read, written = answer.reply.cached_tokens, answer.reply.cache_write_tokens
    return {
        "input_tokens": answer.input_tokens - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": output_tokens,
        "service_tier": "standard",
    }


def _details(answer: Answer) -> Json:
    if not answer.reasoning_tokens:
        return {}
    return {"output_tokens_details": {"thinking_tokens": answer.reasoning_tokens}}


def _blocks(answer: Answer) -> list[Json]:
    blocks: list[Json] = []
    if answer.reply.thinking:
        signature = answer.id("sig_")
        thinking = answer.reply.thinking
        blocks.append({"type": "thinking", "thinking": thinking, "signature": signature})
    if answer.text or not answer.reply.tool_calls:
        blocks.append({"type": "text", "text": answer.text})
    for index, (name, arguments) in enumerate(answer.reply.tool_calls):
        call = {"type": "tool_use", "id": answer.id("toolu_", index), "name": name}
        blocks.append({**call, "input": dict(arguments)})
    return blocks


def _in_pieces(answer: Answer, block: Json) -> tuple[Json, list[Json]]:
    """A block as it begins, and the deltas that fill it."""
    if block["type"] == "text":
        pieces = answer.pieces(block["text"])
        return {**block, "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces]
    if block["type"] == "tool_use":
        arguments = json.dumps(block["input"], ensure_ascii=False)
        pieces = answer.pieces(arguments)
        return {**block, "input": {}}, [
            {"type": "input_json_delta", "partial_json": piece} for piece in pieces
        ]
    deltas: list[Json] = [
        {"type": "thinking_delta", "thinking": piece} for piece in answer.pieces(block["thinking"])
    ]
    deltas.append({"type": "signature_delta", "signature": block["signature"]})
    return {**block, "thinking": "", "signature": ""}, deltas
