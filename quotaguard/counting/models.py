"""What each model charges for: one table of rules, a line per model.

Every constant was fitted on recorded API usage, 2023 to August 2026 (the billed ``usage`` of 2,438
public test recordings), unless its line names another source. A new model is a line in ``OPENAI``
or ``CLAUDE``; a name that matches none gets its family's newest rules, with a warning once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Tiles:
    """Images in 512-pixel tiles: ``base + tile * n`` after fitting 2048 and a short side of 768."""

    base: int
    tile: int


@dataclass(frozen=True, slots=True)
class Patches:
    """Images in 32-pixel patches: ``factor`` per patch, at most ``cap`` patches."""

    factor: float
    cap: int = 1536


@dataclass(frozen=True, slots=True)
class OpenAIRules:
    """How one OpenAI model frames a prompt. All numbers are tokens.

    The defaults are those of the "classic" models, gpt-3.5 to gpt-4.5; "harmony" models (o-series,
    gpt-5) differ in nearly all of them.
    """

    encoding: str = "o200k_base"
    harmony: bool = False
    per_request: int = 3
    per_message: int = 3
    past_answer: int = 0
    """Added to an assistant message of the history."""

    call: int = 6
    result: int = 6
    """Frames of one tool call and of its result, in chat."""
    chat_tools: int = 9
    chat_tools_after_system: int = 5
    system_break: str = "\n"
    """What a system message ends with in chat when tools or a schema follow it."""
    chat_schema: int = 12
    chat_schema_after_system: int = 8
    chat_schema_with_tools: int = 7

    responses_call: int = 6
    responses_result: int = 3
    responses_stored_call: int = 3
    """Added to a call that names an item OpenAI has stored."""
    responses_parallel: int = 0
    """Frame of several calls made at once; 0 where each is framed alone."""
    responses_tools: int = 3
    responses_added_tools: int = 93
    responses_schema: int = 7

    titles: bool = True
    file: int = 1
    """Frame of a file, beside its text and name."""
    image: Tiles | Patches = Tiles(85, 170)


@dataclass(frozen=True, slots=True)
class ClaudeRules:
    """How one Claude generation frames a prompt, in tokens.

    Claude's tokenizer is not public: text costs ``token`` for each ``cl100k_base`` token less
    ``word`` for each run of letters (words are what the two tokenizers agree on), and ``long_word``
    more for each that is long, from nine letters on (Claude's cuts more of these).
    """

    token: float = 1.25
    word: float = 0.28
    long_word: float = 0.36
    per_request: float = 4.0
    per_turn: float = 3.0
    thinking: float = 29.0
    """Added by extended thinking with a budget; adaptive thinking adds nothing."""
    no_thinking: float = 0.0
    """Added when a request has neither tools nor thinking."""
    keeps_thinking: bool = False
    """Whether thinking of earlier turns stays in the prompt."""

    tools_auto: float = 311.0
    tools_forced: float = 275.0
    """The hidden prompt that comes with tools, and the one for ``any`` or a named tool."""
    per_tool: float = 19.7
    named: float = 1.4
    """For each token of the name in ``tool_choice``."""
    label: float = 1.1
    """For each token of a tool's or argument's name, and of a tool's schema."""
    first_call: float = 47.4
    further_call: float = 71.3
    per_argument: float = 9.8
    """Frames of tool calls with their results: the first of a turn, and each further one."""
    layout: float = 80.2
    layout_schema: float = 1.23
    """Structured output: its frame, and each token of the indented schema."""

    image_cap: int = 1533
    document_page: float = 1580.0
    document_text: float = 1.19
    """A PDF: each page's picture, and each token of its text."""
    text_document: float = 40.0
    citations: float = 545.0
    """Frame of a plain text document, and what citations add to it."""


_CL100K = OpenAIRules(encoding="cl100k_base")
_CL100K_JUNE_2023 = replace(_CL100K, titles=False)
_O200K = OpenAIRules()
_O_SERIES = replace(
    _O200K,
    harmony=True,
    per_request=2,
    past_answer=2,
    call=9,
    result=9,
    chat_tools=10,
    chat_tools_after_system=9,
    system_break="\n\n",
    chat_schema=21,
    chat_schema_after_system=20,
    responses_call=9,
    responses_result=6,
    responses_stored_call=0,
    responses_tools=6,
    responses_schema=6,
    file=2,
    image=Tiles(75, 150),
)
_GPT5 = replace(
    _O_SERIES,
    chat_tools=91,
    chat_tools_after_system=90,
    responses_tools=9,
    file=14,  # gpt-5-nano, August 2026
    image=Tiles(70, 140),
)
_GPT5_PATCHES = replace(_GPT5, image=Patches(1.2))
_GPT52 = replace(
    _GPT5_PATCHES, responses_result=9, responses_parallel=22, responses_added_tools=108, file=6
)

OPENAI: dict[str, OpenAIRules] = {
    "gpt-3.5": _CL100K,
    "gpt-3.5-turbo-0301": replace(_CL100K, per_message=4),
    "gpt-3.5-turbo-0613": _CL100K_JUNE_2023,
    "gpt-4": _CL100K_JUNE_2023,
    "gpt-4-0125": _CL100K,
    "gpt-4-1106": _CL100K,
    "gpt-4-turbo": _CL100K,
    "gpt-4-vision": _CL100K,
    "gpt-4o": _O200K,
    "gpt-4o-mini": replace(_O200K, image=Tiles(2833, 5667)),
    "gpt-4.1": _O200K,
    "gpt-4.1-mini": replace(_O200K, image=Patches(1.62)),
    "gpt-4.1-nano": replace(_O200K, image=Patches(2.46)),
    "gpt-4.5": _O200K,
    "gpt-audio": _O200K,
    "chatgpt-4o": _O200K,
    "computer-use-preview": _O200K,
    "o1": _O_SERIES,
    "o1-mini": replace(_O_SERIES, per_request=10),  # one recording, August 2025
    "o1-preview": replace(_O_SERIES, per_request=10),
    "o3": _O_SERIES,
    "o4-mini": replace(_O_SERIES, image=Patches(1.72)),
    "gpt-5": _GPT5,
    "gpt-5-mini": _GPT5_PATCHES,
    "gpt-5-nano": replace(_GPT5, image=Patches(1.5)),
    "gpt-5.1": _GPT5,
    "gpt-5.2": _GPT52,
    "gpt-5.3": _GPT52,
    "gpt-5.4": _GPT52,
    "gpt-5.5": _GPT52,
    "gpt-5.6": _GPT52,
    "text-embedding": _CL100K,
    "davinci": _CL100K,
    "babbage": _CL100K,
}

_CLAUDE_3 = ClaudeRules(tools_auto=530, tools_forced=530)
_CLAUDE_4 = ClaudeRules()
_CLAUDE_45 = ClaudeRules(tools_auto=493, tools_forced=585)
_CLAUDE_46 = replace(_CLAUDE_45, keeps_thinking=True)
_CLAUDE_5 = replace(
    _CLAUDE_46, token=1.5, word=0.2, long_word=0.0, tools_auto=370, tools_forced=505
)

CLAUDE: dict[str, ClaudeRules] = {
    "claude-instant": _CLAUDE_3,
    "claude-2": _CLAUDE_3,
    "claude-3-opus": _CLAUDE_3,
    "claude-3-sonnet": _CLAUDE_3,
    "claude-3-haiku": ClaudeRules(tools_auto=264, tools_forced=350),  # auto: Anthropic's docs
    "claude-3-5-sonnet-20240620": ClaudeRules(tools_auto=290),
    "claude-3-5-sonnet": _CLAUDE_4,
    "claude-3-5-haiku": ClaudeRules(tools_auto=261, tools_forced=351),
    "claude-3-7-sonnet": _CLAUDE_4,
    "claude-opus-4": _CLAUDE_4,
    "claude-sonnet-4": _CLAUDE_4,
    "claude-opus-4-5": _CLAUDE_46,
    "claude-sonnet-4-5": _CLAUDE_45,
    "claude-haiku-4-5": _CLAUDE_45,
    "claude-opus-4-6": _CLAUDE_46,
    "claude-sonnet-4-6": _CLAUDE_46,
    "claude-opus-4-7": replace(_CLAUDE_5, tools_auto=711, tools_forced=846, no_thinking=36.0),
    "claude-opus-4-8": _CLAUDE_5,
    "claude-sonnet-5": _CLAUDE_5,
    "claude-opus-5": _CLAUDE_5,
    "claude-haiku-5": _CLAUDE_5,
    "claude-fable-5": _CLAUDE_5,
}

NEWEST_OPENAI = "gpt-5.6"
NEWEST_CLAUDE = "claude-opus-5"

_CLAUDE_NAME = re.compile(r"claude[-.@\w]*")
_DATE = re.compile(r"[-@]20\d\d-?\d\d-?\d\d.*$|-latest$|-preview$")
_LONGEST_NAME = 200
_MOST_WARNINGS = 100
_warned: set[str] = set()
"""Models that the log was told of: names come from requests, which could fill it."""

log = logging.getLogger("quotaguard")


@lru_cache(maxsize=1024)
def base_name(model: str) -> str:
    """A model's own name: without cloud prefixes, regions or fine-tuning suffixes.

    >>> base_name("us.anthropic.claude-sonnet-4-5-20250929-v1:0")
    'claude-sonnet-4-5-20250929-v1'
    >>> base_name("ft:gpt-4o-mini-2024-07-18:acme::abc")
    'gpt-4o-mini-2024-07-18'
    """
    name = model.strip().lower()
    claude = _CLAUDE_NAME.search(name)
    if claude:
        return re.sub("[.@]", "-", claude[0])
    name = name.removeprefix("ft:").split(":", 1)[0].rsplit("/", 1)[-1]
    return name.replace("gpt-35", "gpt-3.5")


def is_claude(model: str) -> bool:
    """Whether a name is one of Claude's."""
    return base_name(model[:_LONGEST_NAME]).startswith("claude")


def family_name(model: str) -> tuple[str, str]:
    """A model's name without its date, and its family (``openai`` or ``claude``)."""
    return _family_name(model[:_LONGEST_NAME])


@lru_cache(maxsize=1024)
def _family_name(model: str) -> tuple[str, str]:
    name = base_name(model)
    return _DATE.sub("", name), "claude" if name.startswith("claude") else "openai"


def openai_rules(model: str | None) -> OpenAIRules:
    """The rules of an OpenAI model, or of the newest one for a name that is not in the table."""
    return _openai((model or NEWEST_OPENAI)[:_LONGEST_NAME])


def claude_rules(model: str | None) -> ClaudeRules:
    """The rules of a Claude model, or of the newest one for a name that is not in the table."""
    return _claude((model or NEWEST_CLAUDE)[:_LONGEST_NAME])


@lru_cache(maxsize=1024)
def _openai(model: str) -> OpenAIRules:
    return OPENAI[_key(OPENAI, model, NEWEST_OPENAI)]


@lru_cache(maxsize=1024)
def _claude(model: str) -> ClaudeRules:
    return CLAUDE[_key(CLAUDE, model, NEWEST_CLAUDE)]


def _key(table: Iterable[str], model: str, newest: str) -> str:
    """The longest name in the table that stands in the model's: first or, in an alias, anywhere."""
    name = base_name(model)
    found = [key for key in table if re.search(rf"(?<![a-z0-9]){re.escape(key)}(?![a-z0-9])", name)]
    first = [key for key in found if name.startswith(key)]
    if not found and len(_warned) < _MOST_WARNINGS and model not in _warned:
        _warned.add(model)
        log.warning("no counting rules for model %r: using those of %s", model, newest)
    return max(first or found, key=len, default=newest)
