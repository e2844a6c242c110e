"""What OpenAI's endpoints share: the framing of messages, tools and schemas, counted in tokens.

See ``docs/explanation/counting.md`` for the rules and how well they fit recorded usage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .audio import audio_tokens
from .body import compact_json, fields_of, get, items_of, loose_text, text_of
from .files import UNSEEN_TOKENS, read_file
from .images import image_size, openai_image
from .models import OpenAIRules
from .parts import Parts
from .tokens import Tok
from .typescript import render_namespace


class OpenAICounter:
    """Counts one request part by part; ``parts()`` is the result."""

    def __init__(self, rules: OpenAIRules, tok: Tok) -> None:
        self.rules = rules
        self.tok = tok
        self.messages = rules.per_request
        self.tools = self.schema = self.images = self.files = self.audio = self.other = 0
        self.guessed = 0
        self.has_calls = False

    def parts(self) -> Parts:
        """The sums so far."""
        return Parts(
            messages=self.messages,
            tools=self.tools,
            schema=self.schema,
            images=self.images,
            files=self.files,
            audio=self.audio,
            other=self.other,
            guessed=self.guessed,
        )

    def message(self, role: str, content: Any, name: str = "", ending: str = "") -> None:
        """One message; text parts are joined without a separator, as the API does."""
        text = content if type(content) is str else self.content(content)
        if ending:
            text += ending
        framed = self.rules.per_message + (1 if role in _ROLES else self.tok(role))
        if role == "assistant":
            framed += self.rules.past_answer
        self.messages += framed + self.tok(text)
        if name:
            self.name(role, name)

    def name(self, role: str, name: str) -> None:
        """The ``name`` field of a message; one that repeats the role is shorter."""
        self.messages += self.tok(name) + (0 if name == role else 1)

    def content(self, content: Any) -> str:
        """The text of a message; counts its pictures, files and sounds on the way."""
        if isinstance(content, str):
            return content
        texts = []
        for part in (content,) if isinstance(content, Mapping) else items_of(content):
            fields = fields_of(part)
            kind = text_of(get(fields, "type"))
            if "image" in kind or "screenshot" in kind:
                self.image(fields)
            elif "file" in kind:
                self.file(fields)
            elif "audio" in kind:
                self.sound(fields)
            elif fields:
                said = get(fields, "text") or get(fields, "refusal")
                texts.append(text_of(said) if kind in _TEXTS or said else loose_text(fields))
            else:
                texts.append(text_of(part))
        return "".join(texts)

    def image(self, part: Mapping[str, Any]) -> None:
        """A picture: base64 data by its dimensions, anything else by the worst case."""
        source = get(part, "image_url")
        fields = fields_of(source)
        url = text_of(get(fields, "url")) if fields else text_of(source)
        detail = text_of(get(fields, "detail") or get(part, "detail")) or "auto"
        size = image_size(url) if url.startswith("data:") else None
        tokens = openai_image(size, detail, self.rules.image)
        self.images += tokens
        if size is None:
            self.guessed += tokens

    def file(self, part: Mapping[str, Any]) -> None:
        """A file: its text, and its name."""
        fields = fields_of(get(part, "file")) or part
        data = text_of(get(fields, "file_data"))
        if not data:
            self.files += UNSEEN_TOKENS
            self.guessed += UNSEEN_TOKENS
            return
        found = self.tok.derived("file", data, lambda: read_file(data, self.tok).tokens)
        self.files += self.rules.file + int(found) + self.tok(text_of(get(fields, "filename")))

    def sound(self, part: Mapping[str, Any]) -> None:
        """A sound, by its length."""
        data = get(fields_of(get(part, "input_audio")), "data")
        self.audio += audio_tokens(text_of(data))

    def functions(
        self, functions: list[Mapping[str, Any]], overhead: int, *, repeat_comments: bool
    ) -> None:
        """Tool definitions, as the TypeScript the model is shown."""
        titles, harmony = self.rules.titles, self.rules.harmony

        def count() -> float:
            shown = render_namespace(functions, titles=titles, repeat_comments=repeat_comments)
            return self.tok(shown) + sum(map(self._grammar, functions))

        kind = f"tools {titles} {repeat_comments}"
        self.tools += overhead + int(self.tok.derived(kind, compact_json(functions), count))
        undescribed = not text_of(get(functions[0], "description"))
        if harmony and undescribed and not self.has_calls:
            self.tools -= 1

    def _grammar(self, function: Mapping[str, Any]) -> int:
        """The grammar of a custom tool."""
        layout = fields_of(get(function, "format"))
        definition = text_of(get(fields_of(get(layout, "grammar")) or layout, "definition"))
        return _CUSTOM_FRAME + self.tok(definition) if definition else 0

    def json_schema(self, fields: Mapping[str, Any], overhead: int) -> None:
        """Structured output: the schema as ASCII JSON, its name, its description."""
        schema = json_text(shown_schema(fields_of(get(fields, "schema"))))
        self.schema += overhead + self.tok(schema) + self.tok(text_of(get(fields, "name")))

    def description(self, fields: Mapping[str, Any]) -> None:
        """The description of a response format, where the model is shown it."""
        description = text_of(get(fields, "description"))
        if description:
            self.schema += self.tok(f"// {description}\n")


_TEXTS = frozenset({"text", "input_text", "output_text", "refusal"})
_ROLES = frozenset({"user", "assistant", "system", "developer"})
"""Roles that are one token; developer messages are shown as system messages."""
_CUSTOM_FRAME = 40
"""Around the grammar of a custom tool; from a single recording of August 2025."""


def arguments_text(arguments: Any) -> str:
    """Tool call arguments as compact JSON, or as they are where they are no JSON."""
    return compact_json(parsed(arguments)) if _is_json(arguments) else text_of(arguments)


def parsed(arguments: Any) -> Any:
    """Tool call arguments as a value, or as they are where they are no JSON."""
    if isinstance(arguments, str):
        try:
            return json.loads(arguments)
        except (ValueError, RecursionError):
            return arguments
    return arguments


def _is_json(arguments: Any) -> bool:
    return not isinstance(arguments, str) or parsed(arguments) is not arguments


def json_text(value: Any) -> str:
    """Compact JSON with non-ASCII escaped."""
    text = compact_json(value)
    if text.isascii():
        return text
    return "".join(c if c < "\x80" else f"\\u{ord(c):04x}" for c in text)


_FREE = frozenset(
    {
        "$schema",
        "additionalProperties",
        "default",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "maximum",
        "maxItems",
        "maxLength",
        "minimum",
        "minItems",
        "minLength",
        "multipleOf",
        "pattern",
        "required",
        "uniqueItems",
    }
)
_MAX_DEPTH = 100
_NAMED = frozenset({"properties", "$defs", "definitions", "patternProperties"})


def shown_schema(schema: Any) -> Any:
    """A structured output schema as the model is shown it: without its validation keywords."""
    return _without_keywords(schema, _Budget())


class _Budget:
    """Parts of a schema that may still be looked at: Python's can be recursive."""

    def __init__(self) -> None:
        self.left = 50_000


def _without_keywords(schema: Any, budget: _Budget, depth: int = 0) -> Any:
    budget.left -= 1
    if depth > _MAX_DEPTH or budget.left < 0:
        return None
    if isinstance(schema, (list, tuple)):
        return [_without_keywords(item, budget, depth + 1) for item in schema]
    fields = fields_of(schema)
    if not fields:
        return schema
    shown: dict[str, Any] = {}
    for key, value in fields.items():
        if key in _NAMED:
            named = fields_of(value).items()
            shown[key] = {name: _without_keywords(part, budget, depth + 1) for name, part in named}
        elif key not in _FREE:
            shown[key] = _without_keywords(value, budget, depth + 1)
    return shown


def count_plain(value: Any, tok: Tok) -> Parts:
    """Input of ``embeddings`` and legacy ``completions``: text, tokens, or a list of either."""
    return Parts(other=_plain(value, tok))


def _plain(value: Any, tok: Tok) -> int:
    if isinstance(value, str):
        return max(1, tok(value))
    total = 0
    for item in items_of(value):
        if isinstance(item, (list, tuple)):
            total += len(item)
        elif isinstance(item, (int, float)):
            total += 1
        else:
            total += max(1, tok(text_of(item)))
    return total
