"""Input tokens of ``chat/completions`` requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .body import compact_json, fields_of, get, items_of, text_of
from .models import OpenAIRules
from .openai import OpenAICounter, arguments_text, parsed
from .parts import Parts
from .tokens import Tok

_PARALLEL = "multi_tool_use.parallel"
"""The function under whose name several calls of one message are shown to the model."""


def count_chat(request: Mapping[str, Any], rules: OpenAIRules, tok: Tok) -> Parts:
    """Input tokens of a ``chat/completions`` request, by part."""
    counter = OpenAICounter(rules, tok)
    messages = [fields_of(message) for message in items_of(get(request, "messages"))]
    functions = _functions(request)
    layout = fields_of(get(request, "response_format"))
    schema = bool(layout) and get(layout, "type") == "json_schema"
    _Conversation(counter, bool(functions) or schema).count(messages)
    if functions or schema:
        system = any(get(message, "role") in ("system", "developer") for message in messages)
        if functions:
            overhead = rules.chat_tools_after_system if system else rules.chat_tools
            counter.functions(functions, overhead, repeat_comments=True)
            _tool_choice(counter, get(request, "tool_choice") or get(request, "function_call"))
        if schema:
            _schema(counter, fields_of(get(layout, "json_schema")), bool(functions), system)
    if counter.files:
        counter.files += _FILES_PROMPT
    return counter.parts()


_FILES_PROMPT = 212
"""The hidden prompt that comes with files, once a request."""


def _functions(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if tools := [fields_of(tool) for tool in items_of(get(request, "tools"))]:
        return [fields_of(get(tool, "function") or get(tool, "custom")) for tool in tools]
    return [fields_of(item) for item in items_of(get(request, "functions"))]


def _tool_choice(counter: OpenAICounter, choice: Any) -> None:
    if counter.rules.harmony:
        return
    if choice == "none":
        counter.tools += 1
    fields = fields_of(choice)
    if fields:
        named = fields_of(get(fields, "function")) or fields
        counter.tools += 7 + counter.tok(text_of(get(named, "name")))


def _schema(counter: OpenAICounter, fields: Mapping[str, Any], tools: bool, system: bool) -> None:
    rules = counter.rules
    if tools:
        counter.json_schema(fields, rules.chat_schema_with_tools)
    elif system:
        counter.json_schema(fields, rules.chat_schema_after_system)
    else:
        counter.json_schema(fields, rules.chat_schema)
    if not rules.harmony:
        counter.description(fields)
        if not tools:
            counter.schema += counter.tok(text_of(get(fields, "name")))


class _Conversation:
    """Counts the messages, remembering which call each tool result answers."""

    def __init__(self, counter: OpenAICounter, more: bool) -> None:
        self.counter = counter
        self.rules = counter.rules
        self.tok = counter.tok
        self.ending = counter.rules.system_break if more else ""
        self.called: dict[str, str] = {}
        self.results: list[str] = []

    def count(self, messages: list[Mapping[str, Any]]) -> None:
        for message in messages:
            role = message.get("role")
            if type(role) is not str:
                role = text_of(role)
            if role in ("tool", "function"):
                self.result(message)
                continue
            if self.results:
                self.close_results()
            name = text_of(get(message, "name")) if "name" in message else ""
            if role in ("system", "developer"):
                self.counter.message(role, get(message, "content"), name, self.ending)
                self.ending = ""
            else:
                self.turn(role, name, message)
        if self.results:
            self.close_results()

    def turn(self, role: str, name: str, message: Mapping[str, Any]) -> None:
        """A user message, or an assistant message with its tool calls."""
        content = get(message, "content")
        if role == "user":
            self.counter.message(role, content, name)
            return
        calls = [fields_of(call) for call in items_of(get(message, "tool_calls"))]
        legacy = fields_of(get(message, "function_call"))
        if legacy:
            calls.append({"function": legacy})
        if content or not calls:
            self.counter.message(role, content, name)
        elif name:
            self.counter.name(role, name)
        if len(calls) > 1:
            self.parallel(calls)
        elif calls:
            function = fields_of(get(calls[0], "function") or get(calls[0], "custom"))
            called = text_of(get(function, "name"))
            self.called[text_of(get(calls[0], "id"))] = called
            arguments = get(function, "arguments") or get(function, "input")
            self.call("functions." + called, arguments_text(arguments))

    def parallel(self, calls: list[Mapping[str, Any]]) -> None:
        """Several calls of one message: the model sees one call that holds them all."""
        uses = []
        for call in calls:
            function = fields_of(get(call, "function") or get(call, "custom"))
            self.called[text_of(get(call, "id"))] = _PARALLEL
            uses.append(
                {
                    "recipient_name": "functions." + text_of(get(function, "name")),
                    "parameters": parsed(get(function, "arguments") or get(function, "input")),
                }
            )
        self.call(_PARALLEL, compact_json({"tool_uses": uses}))

    def call(self, name: str, arguments: str) -> None:
        self.counter.has_calls = True
        self.counter.messages += self.rules.call + self.tok(name) + self.tok(arguments)

    def result(self, message: Mapping[str, Any]) -> None:
        text = self.counter.content(get(message, "content"))
        name = self.called.get(text_of(get(message, "tool_call_id")))
        if name == _PARALLEL:
            self.results.append(_embedded(text))
            return
        name = name or text_of(get(message, "name"))
        self.counter.messages += self.rules.result + self.tok(name) + self.tok(text)

    def close_results(self) -> None:
        """The results of parallel calls reach the model as one message."""
        joined = self.tok("\n".join(self.results))
        self.counter.messages += self.rules.result + 3 + self.tok(_PARALLEL) + joined
        self.results = []


def _embedded(result: str) -> str:
    """One of several results: JSON as Python's ``json.dumps`` lays it out, text with escapes."""
    value = parsed(result)
    if isinstance(value, (dict, list)):
        return json.dumps(value)
    return compact_json(result)[1:-1]
