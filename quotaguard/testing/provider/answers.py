"""An `Answer`: a reply applied to a request, before it takes any API's shape."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .replies import SENTENCE, Reply
from .routes import Flavour
from .samples import sample

Json = dict[str, Any]

_WORD = re.compile(r"\s*\S+(?:\s+$)?")
_MOST_CHOICES = 128
"""What OpenAI allows as `n`."""
_MAXIMA = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_TEXT = ("messages", "system", "instructions", "input", "prompt", "content", "text", "output")
_ANY_JSON = {"type": "object", "properties": {"answer": {"type": "string"}}}


class Event(NamedTuple):
    """One event of a stream, before it is framed."""

    data: Json | str
    name: str | None = None
    opening: bool = False
    """Whether it comes before the content, and so is no chunk."""
    usage: Any = None
    """The usage this event tells the client."""
    closing: bool = False
    """Whether it belongs to the events that end the stream, which `truncate` withholds."""


@dataclass(frozen=True)
class Answer:
    """What is answered, with every default resolved; token counts are those of the whole answer."""

    reply: Reply
    request: Json
    serial: int
    created: int
    flavour: Flavour
    model: str
    text: str
    finish: str
    """`stop`, `length`, `tool_calls`, `content_filter`, `failed`, or a word of the reply's own."""
    choices: int
    input_tokens: int
    output_tokens: int
    reasoning_tokens: int

    def id(self, prefix: str, part: int = 0) -> str:
        """An identifier of this answer or a part of it, unique within the provider's life."""
        return f"{prefix}{self.serial:016x}{part:08x}"

    def usage(self, true: Json) -> Json:
        """The `usage` field to put into a body: the truth, or what the reply has in its place."""
        if self.reply.usage is Reply.OMIT:
            return {}
        return {"usage": true if self.reply.usage is ... else self.reply.usage}

    def pieces(self, text: str) -> list[str]:
        """The text in the pieces a stream brings it in."""
        count = self.reply.chunks
        if count is None:
            return _WORD.findall(text) or ([text] if text else [])
        ends = [len(text) * index // count for index in range(count + 1)]
        return [text[start:end] for start, end in itertools.pairwise(ends)]

    def calls(self) -> Iterator[tuple[int, str, str]]:
        """Index, name and arguments as JSON text of each tool call."""
        for index, (name, arguments) in enumerate(self.reply.tool_calls):
            yield index, name, json.dumps(arguments, ensure_ascii=False)


def make_answer(
    reply: Reply, request: Json, *, serial: int, flavour: Flavour, model: str
) -> Answer:
    """Resolves what a reply leaves open, by the rules its docstring states.

    Raises:
        ValueError: the request asks for structured output by a schema that nothing fits.
    """
    text = _text(reply, request)
    thought = reply.reasoning_tokens or len(reply.thinking.split())
    called = sum(1 + len(json.dumps(arguments).split()) for _, arguments in reply.tool_calls)
    choices = _choices(request)
    output = reply.output_tokens
    if output is None:
        output = (thought + called + len(text.split())) * choices
    most = _maximum(request)
    capped = most is not None and output > most * choices
    if most is not None and capped:
        output = most * choices
        text = "".join(_WORD.findall(text)[: max(most - thought - called, 0)])
    input_tokens = reply.input_tokens
    if input_tokens is None:
        input_tokens = max(_count(request), reply.cached_tokens + reply.cache_write_tokens, 1)
    return Answer(
        reply=reply,
        request=request,
        serial=serial,
        created=int(time.time()),
        flavour=flavour,
        model=reply.model or model,
        text=text,
        finish=reply.finish_reason
        or ("length" if capped else "tool_calls" if reply.tool_calls else "stop"),
        choices=choices,
        input_tokens=input_tokens,
        output_tokens=output,
        reasoning_tokens=min(thought, output),
    )


def _text(reply: Reply, request: Json) -> str:
    if reply.text is not None:
        return reply.text
    if reply.tool_calls:
        return ""
    schema = _schema(request)
    return SENTENCE if schema is None else json.dumps(sample(schema))


def _schema(request: Json) -> Mapping[str, Any] | None:
    """The schema of the structured output asked for, in whichever API's way."""
    places = (
        request.get("response_format"),
        request.get("output_format"),
        (_mapping(request.get("text"))).get("format"),
        (_mapping(request.get("output_config"))).get("format"),
    )
    for wanted in map(_mapping, places):
        if wanted.get("type") == "json_object":
            return _ANY_JSON
        if wanted.get("type") == "json_schema":
            return _mapping(_mapping(wanted.get("json_schema", wanted)).get("schema"))
    return None


def _mapping(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


def _maximum(request: Json) -> int | None:
    given = [request.get(name) for name in _MAXIMA]
    return max((value for value in given if type(value) is int and value >= 0), default=None)


def _choices(request: Json) -> int:
    """How many answers are asked for: `n` for each prompt (completions take a list of them)."""
    number = request.get("n")
    prompt = request.get("prompt")
    prompts = len(prompt) if isinstance(prompt, list) and not _is_tokens(prompt) else 1
    each = min(max(number, 1), _MOST_CHOICES) if type(number) is int else 1
    return each * max(prompts, 1)


def _is_tokens(value: list[Any]) -> bool:
    return bool(value) and type(value[0]) is int


def _count(value: Any) -> int:
    """Words of the text and tokens of the token arrays in a request or a part of it."""
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, list):
        return len(value) if _is_tokens(value) else sum(map(_count, value))
    if isinstance(value, dict):
        return sum(_count(value[name]) for name in _TEXT if name in value)
    return 0
