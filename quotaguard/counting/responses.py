"""Input tokens of ``responses`` requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .body import fields_of, get, items_of, loose_text, text_of
from .models import OpenAIRules
from .openai import OpenAICounter, arguments_text
from .parts import Parts
from .tokens import Tok


def count_responses(request: Mapping[str, Any], rules: OpenAIRules, tok: Tok) -> Parts:
    """Input tokens of a ``responses`` request, by part."""
    counter = OpenAICounter(rules, tok)
    instructions = get(request, "instructions")
    if instructions:
        counter.message("system", instructions)
    given = get(request, "input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else items_of(given)
    _Items(counter).count([fields_of(item) for item in items])
    if get(fields_of(get(request, "reasoning")), "mode") == "pro":
        counter.other += _PRO + 4 * counter.messages
    functions = _functions(get(request, "tools"))
    if functions:
        counter.functions(functions, rules.responses_tools, repeat_comments=False)
        _tool_choice(counter, request)
    layout = fields_of(get(fields_of(get(request, "text")), "format"))
    if get(layout, "type") == "json_schema":
        counter.json_schema(layout, rules.responses_schema)
        counter.description(layout)
    return counter.parts()


def _functions(tools: Any) -> list[Mapping[str, Any]]:
    """The tools that are defined in the request; hosted ones have prompts nobody has published."""
    listed = [fields_of(tool) for tool in items_of(tools)]
    return [tool for tool in listed if get(tool, "type") in (None, "function", "custom")]


def _tool_choice(counter: OpenAICounter, request: Mapping[str, Any]) -> None:
    choice = get(request, "tool_choice")
    harmony = counter.rules.harmony
    if get(request, "parallel_tool_calls") is False:
        counter.tools += 78 if harmony else 21
    if harmony:
        return
    if choice == "none":
        counter.tools += 1
    elif choice == "required":
        counter.tools += 8 if get(request, "instructions") else 9
    elif get(fields_of(choice), "name"):
        counter.tools += 7 + counter.tok(text_of(get(fields_of(choice), "name")))


class _Items:
    """Counts the input items, remembering which call each output answers."""

    def __init__(self, counter: OpenAICounter) -> None:
        self.counter = counter
        self.rules = counter.rules
        self.tok = counter.tok
        self.called: dict[str, str] = {}
        self.together: set[str] = set()

    def count(self, items: list[Mapping[str, Any]]) -> None:
        calls: list[Mapping[str, Any]] = []
        users = [at for at, item in enumerate(items) if get(item, "role") == "user"]
        last_user = users[-1] if users else -1
        for at, item in enumerate(items):
            kind = text_of(get(item, "type")) or "message"
            if kind in ("function_call", "custom_tool_call"):
                calls.append(item)
                continue
            self.calls(calls)
            calls = []
            if kind == "message":
                self.counter.message(text_of(get(item, "role")), get(item, "content"))
            elif kind.endswith("call_output"):
                self.output(item)
            elif kind == "reasoning":
                self.counter.other += reasoning(item) if at > last_user else 0
            elif kind == "additional_tools":
                self.added_tools(item)
            elif kind != "item_reference":
                self.counter.message("assistant", loose_text(item))
        self.calls(calls)

    def calls(self, calls: list[Mapping[str, Any]]) -> None:
        """Calls the model made in one turn."""
        self.counter.has_calls = self.counter.has_calls or bool(calls)
        together = len(calls) > 1 and self.rules.responses_parallel > 0
        if together:
            self.counter.messages += self.rules.responses_parallel
        for call in calls:
            name = text_of(get(call, "name"))
            key = text_of(get(call, "call_id"))
            self.called[key] = name
            if together:
                self.together.add(key)
            arguments = get(call, "arguments") or get(call, "input")
            frame = _TOGETHER if together else self.rules.responses_call
            if get(call, "id") and get(call, "status"):
                frame += self.rules.responses_stored_call
            namespace = text_of(get(call, "namespace"))
            if namespace:
                frame += 1 + self.tok(namespace)
            self.counter.messages += frame + self.tok("functions." + name)
            self.counter.messages += self.tok(arguments_text(arguments))

    def output(self, item: Mapping[str, Any]) -> None:
        key = text_of(get(item, "call_id"))
        frame = _TOGETHER if key in self.together else self.rules.responses_result
        text = self.counter.content(get(item, "output"))
        name = "functions." + self.called.get(key, "")
        self.counter.messages += frame + self.tok(name) + self.tok(text)

    def added_tools(self, item: Mapping[str, Any]) -> None:
        functions = _functions(get(item, "tools"))
        if functions:
            overhead = self.rules.responses_added_tools
            self.counter.functions(functions, overhead, repeat_comments=False)


def reasoning(item: Mapping[str, Any]) -> int:
    """Encrypted reasoning of the running tool loop; of earlier turns it costs nothing."""
    size = len(text_of(get(item, "encrypted_content")))
    return max(0, round(0.16 * (size - 800)))


_PRO = 1475
"""What ``reasoning.mode = "pro"`` adds, beside counting the messages again (two recordings)."""
_TOGETHER = 6
"""Frame of a call, and of a result, inside a turn of several calls (gpt-5.2 and later)."""
