"""What frames a request to Claude, counted with a token for each character."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from quotaguard.counting.anthropic import count_messages, words
from quotaguard.counting.models import ClaudeRules
from tests.counting.conftest import Letters

# Round numbers in place of the fitted ones: a character is a token, and frames can be told apart.
RULES = ClaudeRules(
    token=1,
    word=0,
    tools_auto=1000,
    tools_forced=2000,
    per_tool=20,
    named=1,
    label=1,
    first_call=50,
    further_call=70,
    per_argument=10,
    layout=80,
    layout_schema=1,
)


def total(letters: Letters, rules: ClaudeRules = RULES, **request: Any) -> int:
    """Tokens of a messages request with these fields."""
    return count_messages(request, rules, letters).total


def user(*content: Any) -> dict[str, Any]:
    """A user message of content blocks."""
    return {"role": "user", "content": list(content)}


HELLO = {"role": "user", "content": "hello"}


def test_turns_are_framed_not_messages(letters: Letters) -> None:
    """Messages of one role in a row are one turn."""
    assert total(letters, messages=[HELLO]) == 4 + 3 + 5
    assert total(letters, messages=[HELLO, HELLO]) == 4 + 3 + 10
    answer = {"role": "assistant", "content": "hi"}
    assert total(letters, messages=[HELLO, answer, HELLO]) == 4 + 9 + 12


def test_a_prefill_is_no_turn_of_its_own(letters: Letters) -> None:
    """The answer that the caller began is billed as text alone."""
    prefill = {"role": "assistant", "content": "hi"}

    assert total(letters, messages=[HELLO, prefill]) == total(letters, messages=[HELLO]) + 2


@pytest.mark.parametrize(
    "system", ["be brief", [{"type": "text", "text": "be brief"}], ["be brief"]]
)
def test_system_adds_only_its_text(letters: Letters, system: Any) -> None:
    """In all its shapes."""
    assert total(letters, messages=[HELLO], system=system) == total(letters, messages=[HELLO]) + 8


def tool(**more: Any) -> dict[str, Any]:
    """A tool definition."""
    return {
        "name": "weather",
        "description": "Tells it",
        "input_schema": {"type": "object"},
        **more,
    }


TOOL = 20 + len("weather") + len("Tells it") + len('{"type": "object"}')


def test_tools_come_with_a_hidden_prompt(letters: Letters) -> None:
    """One prompt for auto and none, another one when a tool must be used."""
    plain = total(letters, messages=[HELLO])

    def with_choice(**choice: Any) -> int:
        return total(letters, messages=[HELLO], tools=[tool(), tool()], **choice) - plain

    assert with_choice() == 1000 + 2 * TOOL
    assert with_choice(tool_choice={"type": "auto"}) == 1000 + 2 * TOOL
    assert with_choice(tool_choice={"type": "any"}) == 2000 + 2 * TOOL
    named = {"type": "tool", "name": "weather"}
    assert with_choice(tool_choice=named) == 2000 + len("weather") + 2 * TOOL


def test_anthropics_own_tools_hide_more(letters: Letters) -> None:
    """Their definitions are Anthropic's, so only their recorded size is known."""
    computer = {"type": "computer_20250124", "name": "computer", "display_width_px": 1024}

    assert total(letters, messages=[HELLO], tools=[computer]) == (
        total(letters, messages=[HELLO]) + 1000 + 20 + len("computer") + 1310
    )


def test_calls_are_framed_by_turn_and_argument(letters: Letters) -> None:
    """The first call of a turn and each further one differ; results count as text."""
    use = {"type": "tool_use", "id": "t", "name": "weather", "input": {"city": "Rome"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "sunny"}
    listed = {**result, "content": [{"type": "text", "text": "sunny"}]}
    call = len("weather") + 10 + len("city") + len("Rome")
    base = total(letters, messages=[HELLO]) + 6

    once = [HELLO, {"role": "assistant", "content": [use]}, user(result)]
    assert total(letters, messages=once) == base + 50 + call + 5
    twice = [HELLO, {"role": "assistant", "content": [use, use]}, user(result, listed)]
    assert total(letters, messages=twice) == base + 50 + 70 + 2 * call + 10


def nested(depth: int) -> dict[str, Any]:
    """Results of tools in one another, with a word at the bottom."""
    block: dict[str, Any] = {"type": "text", "text": "deep"}
    for _ in range(depth):
        block = {"type": "tool_result", "content": [block]}
    return block


def test_blocks_within_blocks_are_counted(letters: Letters) -> None:
    """A document in a tool's result costs what it costs elsewhere."""
    assert total(letters, messages=[user(nested(2))]) == total(letters, messages=[user("deep")])


def test_endless_blocks_are_counted_as_what_they_say(letters: Letters) -> None:
    """However deep a body is, or goes round, the answer is a number."""
    ring: dict[str, Any] = {"type": "tool_result", "content": []}
    ring["content"].append(ring)

    assert total(letters, messages=[user(nested(50_000))]) > 0
    assert total(letters, messages=[user(ring)]) > 0


def test_thinking_with_a_budget_adds_its_prompt(letters: Letters) -> None:
    """Adaptive and disabled thinking add nothing."""
    plain = total(letters, messages=[HELLO])

    def thinking(**settings: Any) -> int:
        return total(letters, messages=[HELLO], thinking=settings) - plain

    assert thinking(type="enabled", budget_tokens=1024) == 29
    assert thinking(type="adaptive") == 0
    assert thinking(type="disabled") == 0


def test_past_thinking_is_dropped_unless_the_model_keeps_it(letters: Letters) -> None:
    """Older generations keep only the thinking of the running tool loop."""
    thought = {"type": "thinking", "thinking": "x" * 100, "signature": ""}
    use = {"type": "tool_use", "name": "t", "input": {}}
    result = {"type": "tool_result", "content": "1"}
    past = [HELLO, {"role": "assistant", "content": [thought]}, HELLO]
    loop = [HELLO, {"role": "assistant", "content": [thought, use]}, user(result)]

    def cost(messages: list[Any], rules: ClaudeRules) -> int:
        without = [
            {**m, "content": [b for b in m["content"] if b is not thought]} for m in messages
        ]
        return total(letters, rules, messages=messages) - total(letters, rules, messages=without)

    keeps = replace(RULES, keeps_thinking=True)
    assert cost(past, RULES) == 0
    assert cost(past, keeps) == 145
    assert cost(loop, RULES) == 145


def test_structured_output_shows_the_indented_schema(letters: Letters) -> None:
    """In both places the API takes it from."""
    layout = {"type": "json_schema", "schema": {"type": "object"}}
    plain = total(letters, messages=[HELLO])
    cost = 80 + len('{\n  "type": "object"\n}')

    assert total(letters, messages=[HELLO], output_format=layout) == plain + cost
    assert total(letters, messages=[HELLO], output_config={"format": layout}) == plain + cost


def test_parts_add_up_to_the_rounded_whole(letters: Letters) -> None:
    """Fractions of tokens are carried along, not rounded up in each part."""
    rules = replace(RULES, token=1.4, per_tool=0.4, layout=0.3)
    request = {
        "messages": [user({"type": "text", "text": "hello"})],
        "tools": [tool()],
        "output_format": {"type": "json_schema", "schema": {}},
    }
    parts = count_messages(request, rules, letters)
    whole = 4 + 3 + 1.4 * 5 + 1000 + 0.4 + 7 + 1.4 * 8 + 18 + 0.3 + 2

    assert parts.total == round(whole)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", (0, 0)),
        ("one", (1, 0)),
        ("two words", (2, 0)),
        ("a1b é c", (3, 0)),
        ("1 2 3", (0, 0)),
        ("  x  ", (1, 0)),
        ("farewells, farewell!", (2, 1)),
        ("a" * 18 + " incremental", (2, 2)),
    ],
)
def test_words_are_runs_of_letters(text: str, found: tuple[int, int]) -> None:
    """Whatever stands between them; the long ones are told apart."""
    assert words(text) == found
