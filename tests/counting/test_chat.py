"""What frames a chat request, counted with a tokenizer that takes each character for a token."""

from __future__ import annotations

from typing import Any

import pytest

from quotaguard.counting.chat import count_chat
from quotaguard.counting.models import openai_rules
from tests.counting.conftest import Letters

CLASSIC = openai_rules("gpt-4o")
HARMONY = openai_rules("gpt-5")
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells it",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
WEATHER_SHOWN = (
    "namespace functions {\n\n// Tells it\ntype weather = (_: { city?: string }) => any;\n\n"
    "} // namespace functions"
)


def total(letters: Letters, rules: Any = CLASSIC, **request: Any) -> int:
    """Tokens of a chat request with these fields."""
    return count_chat(request, rules, letters).total


def test_each_message_has_a_frame(letters: Letters) -> None:
    """Three tokens for the request, three and the role for each message, and its text."""
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]

    assert total(letters, messages=messages) == 3 + (3 + 1 + 5) + (3 + 1 + 2)


def test_harmony_models_frame_differently(letters: Letters) -> None:
    """They save a token per request and spend two on each answer of the history."""
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]

    assert total(letters, HARMONY, messages=messages) == 2 + (3 + 1 + 5) + (3 + 1 + 2 + 2)


def test_text_parts_are_one_text(letters: Letters) -> None:
    """Parts of one message are joined without a separator."""
    parts = [{"type": "text", "text": "he"}, {"type": "text", "text": "llo"}]
    whole = total(letters, messages=[{"role": "user", "content": "hello"}])

    assert total(letters, messages=[{"role": "user", "content": parts}]) == whole


def test_a_name_costs_itself_and_one_unless_it_repeats_the_role(letters: Letters) -> None:
    """``name`` is shown beside the role."""
    plain = total(letters, messages=[{"role": "user", "content": "x"}])

    def named(name: str) -> int:
        return total(letters, messages=[{"role": "user", "content": "x", "name": name}])

    assert named("anna") == plain + 1 + 4
    assert named("user") == plain + 4


def test_tools_are_shown_as_typescript(letters: Letters) -> None:
    """Nine tokens and the declaration; five and a line break where there is a system message."""
    user = {"role": "user", "content": "x"}
    system = {"role": "system", "content": "s"}

    assert total(letters, messages=[user], tools=[WEATHER]) == (
        total(letters, messages=[user]) + 9 + len(WEATHER_SHOWN)
    )
    assert total(letters, messages=[system, user], tools=[WEATHER]) == (
        total(letters, messages=[system, user]) + 1 + 5 + len(WEATHER_SHOWN)
    )


def test_legacy_functions_cost_what_tools_cost(letters: Letters) -> None:
    """``functions`` are tools by an older name."""
    user = [{"role": "user", "content": "x"}]

    assert total(letters, messages=user, functions=[WEATHER["function"]]) == total(
        letters, messages=user, tools=[WEATHER]
    )


@pytest.mark.parametrize(
    ("choice", "more"),
    [
        ("auto", 0),
        ("required", 0),
        ("none", 1),
        ({"type": "function", "function": {"name": "weather"}}, 7 + 7),
    ],
)
def test_tool_choice_costs_what_it_adds(letters: Letters, choice: Any, more: int) -> None:
    """Naming a tool repeats its name; the others are nearly free."""
    request = {"messages": [{"role": "user", "content": "x"}], "tools": [WEATHER]}

    assert total(letters, **request, tool_choice=choice) == total(letters, **request) + more


def call(number: int, name: str = "weather", arguments: str = '{ "city": "Rome" }') -> Any:
    """One tool call."""
    return {"id": f"call_{number}", "function": {"name": name, "arguments": arguments}}


def test_a_tool_call_and_its_result_are_framed(letters: Letters) -> None:
    """Arguments count as compact JSON, the result beside the function's name, ids nothing."""
    user = {"role": "user", "content": "x"}
    asked = {"role": "assistant", "content": None, "tool_calls": [call(1)]}
    answered = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}

    assert total(letters, messages=[user, asked, answered]) == (
        total(letters, messages=[user])
        + (6 + len("functions.weather") + len('{"city":"Rome"}'))
        + (6 + len("weather") + len("sunny"))
    )


def test_parallel_calls_are_shown_as_one(letters: Letters) -> None:
    """Several calls of a message are one call of multi_tool_use.parallel, their results one."""
    user = {"role": "user", "content": "x"}
    asked = {"role": "assistant", "tool_calls": [call(1), call(2)]}
    results = [
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "call_2", "content": "a\nb"},
    ]
    use = '{"recipient_name":"functions.weather","parameters":{"city":"Rome"}}'

    assert total(letters, messages=[user, asked, *results]) == (
        total(letters, messages=[user])
        + (6 + len("multi_tool_use.parallel") + len('{"tool_uses":[' + use + "," + use + "]}"))
        + (9 + len("multi_tool_use.parallel") + len("sunny\na\\nb"))
    )


def test_structured_output_shows_the_schema_without_its_validation(letters: Letters) -> None:
    """Required, default, format and the like are free; a property of that name is not."""
    user = {"role": "user", "content": "x"}
    schema = {
        "type": "object",
        "properties": {"format": {"type": "string", "default": "é", "format": "date"}},
        "required": ["format"],
        "additionalProperties": False,
        "title": "é",
    }
    layout = {"type": "json_schema", "json_schema": {"name": "note", "schema": schema}}
    shown = '{"type":"object","properties":{"format":{"type":"string"}},"title":"\\u00e9"}'

    assert total(letters, messages=[user], response_format=layout) == (
        total(letters, messages=[user]) + 12 + 2 * len("note") + len(shown)
    )


def test_json_mode_is_free(letters: Letters) -> None:
    """``json_object`` adds nothing."""
    user = [{"role": "user", "content": "x"}]

    assert total(letters, messages=user, response_format={"type": "json_object"}) == total(
        letters, messages=user
    )


def test_a_part_of_each_kind_counts_in_its_place(letters: Letters) -> None:
    """Pictures, files and sounds are counted apart from the text."""
    content = [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        "a bare string",
    ]
    request = {"messages": [{"role": "user", "content": content}]}
    parts = count_chat(request, CLASSIC, letters)

    assert parts.messages == 3 + 3 + 1 + len("looka bare string")
    assert parts.images == 85
    assert parts.files == 3000 + 212
    assert parts.audio > 0
    assert parts.guessed == 85 + 3000
    assert parts.total == parts.messages + parts.images + parts.files + parts.audio
