"""What frames a Responses request, counted with a token for each character."""

from __future__ import annotations

from typing import Any

import pytest

from quotaguard.counting.models import openai_rules
from quotaguard.counting.responses import count_responses
from tests.counting.conftest import Letters

CLASSIC = openai_rules("gpt-4.1")
HARMONY = openai_rules("gpt-5.4")
WEATHER = {"type": "function", "name": "weather", "description": "Tells it", "parameters": {}}
WEATHER_SHOWN = (
    "namespace functions {\n\n// Tells it\ntype weather = () => any;\n\n} // namespace functions"
)


def total(letters: Letters, rules: Any = CLASSIC, **request: Any) -> int:
    """Tokens of a Responses request with these fields."""
    return count_responses(request, rules, letters).total


def test_a_string_is_one_user_message_and_instructions_one_system_message(
    letters: Letters,
) -> None:
    """All ways to say the same thing cost the same."""
    items = [{"role": "developer", "content": "be brief"}, {"role": "user", "content": "hello"}]

    assert total(letters, input="hello") == 3 + 3 + 1 + 5
    assert total(letters, input="hello", instructions="be brief") == total(letters, input=items)


@pytest.mark.parametrize(("rules", "overhead"), [(CLASSIC, 3), (HARMONY, 9)])
def test_tools_are_shown_as_typescript(letters: Letters, rules: Any, overhead: int) -> None:
    """An overhead by generation, and the declaration."""
    assert total(letters, rules, input="x", tools=[WEATHER]) == (
        total(letters, rules, input="x") + overhead + len(WEATHER_SHOWN)
    )


def items(stored: bool, number: int = 1) -> list[Any]:
    """A user message, calls made in one turn, and their outputs."""
    extra = {"id": "fc_1", "status": "completed"} if stored else {}
    calls = [
        {"type": "function_call", "call_id": f"c{n}", "name": "weather", "arguments": "{}", **extra}
        for n in range(number)
    ]
    outputs = [
        {"type": "function_call_output", "call_id": f"c{n}", "output": "sunny"}
        for n in range(number)
    ]
    return [{"role": "user", "content": "x"}, *calls, *outputs]


CONTENT = 2 * len("functions.weather") + len("{}") + len("sunny")


def test_calls_and_outputs_are_framed(letters: Letters) -> None:
    """A call that names a stored item costs three tokens more than one that is sent anew."""
    alone = total(letters, input="x")

    assert total(letters, input=items(stored=False)) == alone + 6 + 3 + CONTENT
    assert total(letters, input=items(stored=True)) == alone + 9 + 3 + CONTENT


def test_calls_of_one_turn_stay_apart_on_classic_models(letters: Letters) -> None:
    """Unlike in chat, nothing is merged."""
    alone = total(letters, input="x")

    assert total(letters, input=items(False, 3)) == alone + 3 * (6 + 3 + CONTENT)


def test_calls_of_one_turn_share_a_frame_on_later_models(letters: Letters) -> None:
    """Since gpt-5.2 a turn of several calls has one frame and each call a smaller one."""
    alone = total(letters, HARMONY, input="x")

    assert total(letters, HARMONY, input=items(False, 3)) == alone + 22 + 3 * (12 + CONTENT)


def test_reasoning_counts_only_in_the_running_tool_loop(letters: Letters) -> None:
    """Encrypted reasoning before the last user message is dropped by the API."""
    user = {"role": "user", "content": "x"}
    thought = {"type": "reasoning", "encrypted_content": "A" * 2820}

    assert total(letters, HARMONY, input=[user, thought]) == (
        total(letters, HARMONY, input=[user]) + 323
    )
    assert total(letters, HARMONY, input=[user, thought, user]) == (
        total(letters, HARMONY, input=[user, user])
    )


def test_tools_added_in_the_input_are_counted(letters: Letters) -> None:
    """Later tools come with a prompt of their own."""
    user = {"role": "user", "content": "x"}
    added = {"type": "additional_tools", "role": "developer", "tools": [WEATHER]}

    assert total(letters, HARMONY, input=[user, added]) == (
        total(letters, HARMONY, input=[user]) + 108 + len(WEATHER_SHOWN)
    )


def test_structured_output_counts_schema_name_and_description(letters: Letters) -> None:
    """The same schema costs less than in chat, and its description is shown."""
    layout = {"type": "json_schema", "name": "note", "schema": {"type": "object"}}
    schema = len('{"type":"object"}')

    assert total(letters, input="x", text={"format": layout}) == (
        total(letters, input="x") + 7 + len("note") + schema
    )
    described = {**layout, "description": "A note"}
    assert total(letters, input="x", text={"format": described}) == (
        total(letters, input="x") + 7 + len("note") + schema + len("// A note\n")
    )
