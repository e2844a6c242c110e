"""OpenAI's Responses API: bodies and stream events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .answers import Answer, Event, Json

_ECHOED: Json = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


def true_usage(answer: Answer) -> Json:
    """The usage of a response or a compaction."""
    return {
        "input_tokens": answer.input_tokens,
        "input_tokens_details": {
            "cached_tokens": answer.reply.cached_tokens,
            "cache_write_tokens": answer.reply.cache_write_tokens,
        },
        "output_tokens": answer.output_tokens,
        "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
        "total_tokens": answer.input_tokens + answer.output_tokens,
    }


def final_status(answer: Answer) -> str:
    """`completed`, `incomplete` or `failed`, as the reply's finish reason has it."""
    if answer.finish == "failed":
        return "failed"
    return "incomplete" if answer.finish in _INCOMPLETE else "completed"


def response_body(answer: Answer, status: str | None = None) -> Json:
    """A `response`: as it ends, or in a status before that (no output and a null usage then)."""
    status = status or final_status(answer)
    over = status in ("completed", "incomplete", "failed")
    failure = {"code": "server_error", "message": "The response could not be made."}
    echoed = {
        name: default if answer.request.get(name) is None else answer.request[name]
        for name, default in _ECHOED.items()
    }
    return {
        "id": answer.id("resp_"),
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "background": answer.request.get("background") is True,
        "error": failure if status == "failed" else None,
        "incomplete_details": {"reason": _INCOMPLETE[answer.finish]}
        if status == "incomplete"
        else None,
        "model": answer.model,
        "output": _items(answer) if over else [],
        **echoed,
        **(answer.usage(true_usage(answer)) if over else {"usage": None}),
    }


def response_events(answer: Answer) -> Iterator[Event]:
    """The events of a streamed response, numbered in sequence."""
    for number, event in enumerate(_events(answer)):
        assert isinstance(event.data, dict)
        kind = event.data["type"]
        yield event._replace(data={**event.data, "sequence_number": number}, name=kind)


def compaction_body(answer: Answer) -> Json:
    """A `response.compaction`: the conversation folded into one opaque item."""
    item = {"type": "compaction", "id": answer.id("cmp_"), "encrypted_content": answer.text}
    return {
        "id": answer.id("resp_"),
        "object": "response.compaction",
        "created_at": answer.created,
        "output": [item],
        **answer.usage(true_usage(answer)),
    }


def _items(answer: Answer) -> list[Json]:
    """The output: reasoning if there was any, the message, and the tool calls."""
    items: list[Json] = []
    if answer.reasoning_tokens:
        thinking = answer.reply.thinking
        summary = [{"type": "summary_text", "text": thinking}] if thinking else []
        items.append({"type": "reasoning", "id": answer.id("rs_"), "summary": summary})
    if answer.text or not answer.reply.tool_calls:
        items.append(
            {
                "type": "message",
                "id": answer.id("msg_"),
                "status": "incomplete" if answer.finish == "length" else "completed",
                "role": "assistant",
                "content": [_part(answer.text)],
            }
        )
    for index, name, arguments in answer.calls():
        items.append(
            {
                "type": "function_call",
                "id": answer.id("fc_", index),
                "call_id": answer.id("call_", index),
                "name": name,
                "arguments": arguments,
                "status": "completed",
            }
        )
    return items


def _part(text: str) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _events(answer: Answer) -> Iterator[Event]:
    queued = ("response.queued",) if answer.request.get("background") is True else ()
    for kind in ("response.created", *queued, "response.in_progress"):
        status = "queued" if queued and kind != "response.in_progress" else "in_progress"
        yield Event({"type": kind, "response": response_body(answer, status)}, opening=True)
    started = False
    for index, item in enumerate(_items(answer)):
        for event in _item_events(answer, index, item):
            delta = event["type"].endswith(".delta")
            yield Event(event, opening=not (started or delta))
            started = started or delta
    status = final_status(answer)
    body = response_body(answer, status)
    yield Event(
        {"type": f"response.{status}", "response": body}, usage=body.get("usage"), closing=True
    )


def _item_events(answer: Answer, index: int, item: Json) -> Iterator[Json]:
    """One output item coming to be: added, its parts in deltas, done."""
    at = {"output_index": index, "item_id": item["id"]}
    blank = {**item, "status": "in_progress"}
    if item["type"] == "message":
        blank["content"] = []
    elif item["type"] == "function_call":
        blank["arguments"] = ""
    else:
        blank = {**item, "summary": []}
    yield {"type": "response.output_item.added", "output_index": index, "item": blank}
    if item["type"] == "message":
        yield from _parts(
            answer, {**at, "content_index": 0}, "content_part", "output_text", item["content"]
        )
    elif item["type"] == "function_call":
        kind = "response.function_call_arguments"
        for piece in answer.pieces(item["arguments"]):
            yield {"type": f"{kind}.delta", **at, "delta": piece}
        yield {"type": f"{kind}.done", **at, "name": item["name"], "arguments": item["arguments"]}
    else:
        yield from _parts(
            answer,
            {**at, "summary_index": 0},
            "reasoning_summary_part",
            "reasoning_summary_text",
            item["summary"],
        )
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _parts(answer: Answer, at: Json, part: str, text: str, whole: list[Json]) -> Iterator[Json]:
    """The one part of a message or of a reasoning summary, if it has one."""
    extra: dict[str, Any] = {"logprobs": []} if text == "output_text" else {}
    for content in whole:
        yield {"type": f"response.{part}.added", **at, "part": {**content, "text": ""}}
        for piece in answer.pieces(content["text"]):
            yield {"type": f"response.{text}.delta", **at, "delta": piece, **extra}
        yield {"type": f"response.{text}.done", **at, "text": content["text"], **extra}
        yield {"type": f"response.{part}.done", **at, "part": content}
