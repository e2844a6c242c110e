"""Input tokens of Anthropic's ``messages`` requests, by a model of Claude's prompt.

Claude's tokenizer is not public, so nothing here is exact by construction: ``models.ClaudeRules``
holds what recorded usage shows, and ``docs/explanation/counting.md`` how well it fits. Calibration
corrects the rest from the usage that comes back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from .body import compact_json, fields_of, get, items_of, loose_text, text_of
from .files import UNSEEN_TOKENS, read_file
from .images import claude_image, image_size
from .models import ClaudeRules
from .parts import Parts
from .tokens import Bytes, Tok

_LETTERS = bytes(ord("a") if chr(byte).isalpha() and byte < 128 else 32 for byte in range(256))


def words(text: str) -> tuple[int, int]:
    """How many runs of ASCII letters a text has, and how many of these have nine letters or more;
    linear, and quick on any text.
    """
    letters = b" " + text.encode("ascii", "replace").translate(_LETTERS)
    return letters.count(b" a"), letters.count(b" aaaaaaaaa")


def claude_text(text: str, rules: ClaudeRules, tok: Tok) -> int:
    """Tokens of a text for Claude."""
    return math.floor(_fraction(text, rules, tok) + _ROUND_UP)


def _fraction(text: str, rules: ClaudeRules, tok: Tok) -> float:
    tokens = rules.token * tok(text)  # first: it may find that counting can stop
    found, long = words(text)
    return tokens - rules.word * found + rules.long_word * long


_ROUND_UP = 0.9
"""Fractions from a tenth count as a whole token: the estimate errs upward."""
_MAX_DEPTH = 3
"""Blocks within blocks; a document in a tool's result is the deepest that the API takes."""


class ClaudeCounter:
    """Counts one request in fractions of tokens; ``parts()`` is the result."""

    def __init__(self, rules: ClaudeRules, tok: Tok) -> None:
        self.rules = rules
        self.tok = tok
        self.bounds = isinstance(tok, Bytes)
        self.messages = rules.per_request
        self.tools = self.schema = self.images = self.files = 0.0
        self.guessed = 0

    def parts(self) -> Parts:
        """The sums so far, rounded so that they add up to the rounded whole."""
        rounded, whole, before = [], 0.0, 0
        for tokens in (self.messages, self.tools, self.schema, self.images, self.files):
            whole += tokens
            after = math.floor(whole + _ROUND_UP)
            rounded.append(after - before)
            before = after
        messages, tools, schema, images, files = rounded
        return Parts(messages, tools, schema, images, files, guessed=self.guessed)

    def text(self, text: str) -> float:
        """Tokens of a text for Claude."""
        if self.bounds:  # a bound need not be tight
            return self.rules.token * self.tok(text)
        return _fraction(text, self.rules, self.tok)

    def label(self, text: str) -> float:
        """Tokens of a name, or of text that is all names and marks."""
        return self.rules.label * self.tok(text)

    def content(self, content: Any, thinking: bool, depth: int = 0) -> None:
        """Content blocks of one message; ``thinking`` says whether its thinking is kept."""
        if isinstance(content, str):
            self.messages += self.text(content)
            return
        calls = 0
        for item in items_of(content):
            block = fields_of(item)
            kind = text_of(get(block, "type"))
            if not block:
                self.messages += self.text(text_of(item))
            elif depth > _MAX_DEPTH:
                self.messages += self.text(loose_text(block))
            elif kind == "image":
                self.image(fields_of(get(block, "source")))
            elif kind == "document":
                self.document(block, depth)
            elif kind.endswith("tool_use"):
                calls += 1
                self.call(block, first=calls == 1)
            elif kind.endswith("tool_result"):
                self.content(get(block, "content"), thinking, depth + 1)
            elif kind.endswith("thinking"):
                self.messages += self.thinking(block) if thinking else 0.0
            elif kind == "text":
                self.messages += self.text(text_of(get(block, "text")))
            else:
                self.messages += self.text(loose_text(block))

    def call(self, block: Mapping[str, Any], first: bool) -> None:
        """One tool call, with the frame of its result."""
        rules = self.rules
        self.messages += rules.first_call if first else rules.further_call
        self.messages += self.label(text_of(get(block, "name")))
        given = get(block, "input")
        arguments = fields_of(given) or ({"": given} if given else {})
        for name, value in arguments.items():
            self.messages += rules.per_argument + self.label(text_of(name))
            self.messages += self.text(text_of(value))

    def thinking(self, block: Mapping[str, Any]) -> float:
        """Thinking that stays in the prompt: its text is a summary, its signature the whole."""
        signed = len(text_of(get(block, "signature"))) + len(text_of(get(block, "data")))
        return max(1.45 * self.tok(text_of(get(block, "thinking"))), (signed - 400) / 5)

    def image(self, source: Mapping[str, Any]) -> None:
        """A picture: base64 data by its dimensions, anything else by the worst case."""
        size = image_size(text_of(get(source, "data")))
        tokens = claude_image(size, self.rules)
        self.images += tokens
        if size is None:
            self.guessed += tokens

    def document(self, block: Mapping[str, Any], depth: int = 0) -> None:
        """A document: a page is a picture and its text; plain text is text."""
        rules = self.rules
        source = fields_of(get(block, "source"))
        data = text_of(get(source, "data"))
        cited = bool(get(fields_of(get(block, "citations")), "enabled"))
        self.files += self.text(text_of(get(block, "title")) + text_of(get(block, "context")))
        if get(source, "type") in ("text", "content"):
            self.files += rules.text_document + self.text(data)
            self.content(get(source, "content"), thinking=False, depth=depth + 1)
            self.files += rules.citations if cited else 0.0
        elif data:
            kind = f"pdf {cited} {rules.document_page} {rules.document_text}"
            self.files += self.tok.derived(kind, data, lambda: self._pdf(data, cited))
        else:
            self.files += UNSEEN_TOKENS
            self.guessed += UNSEEN_TOKENS

    def _pdf(self, data: str, cited: bool) -> float:
        found = read_file(data, self.tok)
        pages = max(1, found.pages) * (2 if cited else 1)
        return pages * self.rules.document_page + self.rules.document_text * found.tokens

    def definitions(self, tools: list[Mapping[str, Any]], choice: Mapping[str, Any]) -> None:
        """Tool definitions, with the hidden prompt that comes with them."""
        rules = self.rules
        forced = get(choice, "type") in ("any", "tool")
        self.tools += rules.tools_forced if forced else rules.tools_auto
        self.tools += rules.named * self.tok(text_of(get(choice, "name")))
        self.tools += self.tok.derived(
            f"claude {rules.token} {rules.word} {rules.long_word} {rules.label} {rules.per_tool}",
            compact_json(tools),
            lambda: sum(map(self._definition, tools)),
        )

    def _definition(self, tool: Mapping[str, Any]) -> float:
        kind = text_of(get(tool, "type"))
        named = self.rules.per_tool + self.label(text_of(get(tool, "name")))
        if kind not in ("", "custom"):
            return named + hidden_tool(kind)
        described = self.text(text_of(get(tool, "description")))
        return named + described + self.label(spaced_json(get(tool, "input_schema") or {}))

    def structured(self, layout: Mapping[str, Any]) -> None:
        """Structured output: the schema, indented."""
        schema = spaced_json(get(layout, "schema") or {}, indent=2)
        self.schema += self.rules.layout + self.rules.layout_schema * self.tok(schema)


_HIDDEN_TOOLS = {"computer": 1310, "memory": 1045}
_HIDDEN_TOOL = 1000
"""What Anthropic's own tools add; computer and memory recorded, the others a guess upward."""


def hidden_tool(kind: str) -> int:
    """Tokens of an Anthropic-defined tool, by its type (``computer_20250124``)."""
    return _HIDDEN_TOOLS.get(kind.rsplit("_", 1)[0], _HIDDEN_TOOL)


def spaced_json(value: Any, indent: int | None = None) -> str:
    """JSON with the spaces ``json.dumps`` puts by default, or indented."""
    try:
        return json.dumps(json.loads(compact_json(value)), ensure_ascii=False, indent=indent)
    except (ValueError, RecursionError):
        return compact_json(value)


def count_messages(request: Mapping[str, Any], rules: ClaudeRules, tok: Tok) -> Parts:
    """Input tokens of a ``messages`` request, by part."""
    counter = ClaudeCounter(rules, tok)
    messages = [fields_of(message) for message in items_of(get(request, "messages"))]
    counter.content(get(request, "system"), thinking=False)
    _turns(counter, messages)
    tools = [fields_of(tool) for tool in items_of(get(request, "tools"))]
    thinking = get(fields_of(get(request, "thinking")), "type")
    if tools:
        counter.definitions(tools, fields_of(get(request, "tool_choice")))
    elif thinking not in ("enabled", "adaptive"):
        counter.messages += rules.no_thinking
    if thinking == "enabled":
        counter.messages += rules.thinking
    layout = get(request, "output_format") or get(
        fields_of(get(request, "output_config")), "format"
    )
    if layout := fields_of(layout):
        counter.structured(layout)
    return counter.parts()


def _turns(counter: ClaudeCounter, messages: list[Mapping[str, Any]]) -> None:
    """Messages of one role in a row are one turn; a prefill is one that was begun already."""
    rules = counter.rules
    loop = -1 if rules.keeps_thinking else _loop_start(messages)
    previous = None
    for at, message in enumerate(messages):
        role = get(message, "role")
        if role != previous:
            counter.messages += rules.per_turn
        previous = role
        counter.content(get(message, "content"), thinking=at > loop)
    if previous == "assistant":
        counter.messages -= rules.per_turn


def _loop_start(messages: list[Mapping[str, Any]]) -> int:
    """Where the running tool loop began: the last user message that is not a tool result."""
    for at in range(len(messages) - 1, -1, -1):
        if get(messages[at], "role") == "user":
            content = get(messages[at], "content")
            if type(content) is str:
                return at
            blocks = [fields_of(block) for block in items_of(content)]
            if not any(get(block, "type") == "tool_result" for block in blocks):
                return at
    return -1
