"""A request made for one model, changed so that another one takes it.

Pure: a body goes in, a new one comes out. What a model does not know is dropped, what it calls by
another name is renamed, and a maximum beyond its own is lowered.

Sources, November 2026: the parameters that reasoning models reject,
https://learn.microsoft.com/azure/ai-foundry/openai/how-to/reasoning and
https://platform.openai.com/docs/guides/reasoning; the longest answers, the model pages of
https://platform.openai.com/docs/models and https://docs.claude.com/en/docs/about-claude/models;
thinking, https://docs.claude.com/en/docs/build-with-claude/extended-thinking.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .openai import reasons

LONGEST_ANSWER: tuple[tuple[str, int], ...] = (
    (r"gpt-3\.5", 4_096),
    (r"gpt-4o|chatgpt-4o", 16_384),
    (r"gpt-4\.[1-9]", 32_768),
    (r"gpt-4-(turbo|1106|0125|vision)", 4_096),
    (r"gpt-4", 8_192),
    (r"o1-mini", 65_536),
    (r"o\d", 100_000),
    (r"gpt-[5-9]", 128_000),
    (r"claude-(2|instant|3-(opus|sonnet|haiku))", 4_096),
    (r"claude-3-5", 8_192),
    (r"claude-(opus-4-[01]|opus-4-2025|opus-4$)", 32_000),
    (r"claude-", 64_000),
)
"""Beginning of a model's name -> the most output tokens that it takes as a maximum; the first that
matches counts."""

_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
_ONLY_WITHOUT_REASONING = (*_SAMPLING, "logprobs", "top_logprobs", "logit_bias")
_EFFORTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"gpt-5(?!\.)", ("minimal", "low", "medium", "high")),
    (r"gpt-", ("none", "low", "medium", "high", "xhigh")),
    (r"o\d", ("low", "medium", "high")),
)
_EFFORT_ORDER = ("none", "minimal", "low", "medium", "high", "xhigh")
_WITHOUT_THINKING = re.compile(r"claude-(2|instant|3-(opus|sonnet|haiku|5))")
_WITH_ADAPTIVE_THINKING = re.compile(r"claude-((opus|sonnet)-4-[6-9]|[a-z]+-[5-9])")
_WITH_EFFORT = re.compile(r"claude-(opus-4-[5-9]|sonnet-4-[6-9]|[a-z]+-[5-9])")
_ONE_OF_TEMPERATURE_AND_TOP_P = re.compile(r"claude-(opus-4-[1-9]|[a-z]+-4-[5-9]|[a-z]+-[5-9])")
_LEAST_BUDGET = 1024
"""Tokens; the least that Anthropic takes as a thinking budget."""


def adapted(endpoint: str, body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The body as the model takes it, its ``model`` replaced.

    Args:
        endpoint: ``"chat"``, ``"responses"``, ``"messages"``, ``"completions"`` or
            ``"embeddings"``.
        body: the request's JSON body; it is not changed.
        model: the model that is to serve it.
    """
    changed = {**body, "model": model}
    own = _own_name(model)
    adapt = _BY_ENDPOINT.get(endpoint)
    if adapt is not None:
        adapt(changed, own)
    _lower_maximum(changed, own)
    return changed


def _own_name(model: str) -> str:
    """A model's name without what clouds and routers put before it."""
    claude = re.search(r"claude-.*", model)
    return claude[0].replace(".", "-") if claude else model.rpartition("/")[2]


def _chat(body: dict[str, Any], model: str) -> None:
    if reasons(model):
        for name in _ONLY_WITHOUT_REASONING:
            body.pop(name, None)
        if "max_tokens" in body:
            most = body.pop("max_tokens")
            body.setdefault("max_completion_tokens", most)
        if isinstance(body.get("reasoning_effort"), str):
            body["reasoning_effort"] = _effort(body["reasoning_effort"], model)
        return
    body.pop("reasoning_effort", None)
    body.pop("verbosity", None)


def _responses(body: dict[str, Any], model: str) -> None:
    reasoning = body.get("reasoning")
    if reasons(model):
        for name in (*_SAMPLING, "top_logprobs"):
            body.pop(name, None)
        if isinstance(reasoning, Mapping) and isinstance(reasoning.get("effort"), str):
            body["reasoning"] = {**reasoning, "effort": _effort(reasoning["effort"], model)}
        return
    body.pop("reasoning", None)
    if isinstance(body.get("text"), Mapping):
        body["text"] = {key: value for key, value in body["text"].items() if key != "verbosity"}
    if isinstance(body.get("include"), list):
        body["include"] = [each for each in body["include"] if not _is_of(each, "reasoning.")]
    if isinstance(body.get("input"), list):
        body["input"] = [item for item in body["input"] if _type(item) != "reasoning"]


def _messages(body: dict[str, Any], model: str) -> None:
    thinking = _type(body.get("thinking"))
    if _WITHOUT_THINKING.match(model) or (
        thinking == "adaptive" and not _WITH_ADAPTIVE_THINKING.match(model)
    ):
        body.pop("thinking", None)
    if _WITHOUT_THINKING.match(model) and isinstance(body.get("messages"), list):
        body["messages"] = [_without_thoughts(message) for message in body["messages"]]
    if not _WITH_EFFORT.match(model) and isinstance(body.get("output_config"), Mapping):
        body["output_config"] = {k: v for k, v in body["output_config"].items() if k != "effort"}
        if not body["output_config"]:
            del body["output_config"]
    if _ONE_OF_TEMPERATURE_AND_TOP_P.match(model) and "temperature" in body:
        body.pop("top_p", None)


_BY_ENDPOINT: Mapping[str, Callable[[dict[str, Any], str], None]] = {
    "chat": _chat,
    "responses": _responses,
    "messages": _messages,
}


def _lower_maximum(body: dict[str, Any], model: str) -> None:
    most = next((most for name, most in LONGEST_ANSWER if re.match(name, model)), None)
    if most is None:
        return
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if isinstance(body.get(name), int) and body[name] > most:
            body[name] = most
    thinking = body.get("thinking")
    stated = body.get("max_tokens")
    if not isinstance(thinking, Mapping) or not isinstance(stated, int):
        return
    budget = thinking.get("budget_tokens")
    if isinstance(budget, int) and budget >= stated:
        if stated > _LEAST_BUDGET:
            body["thinking"] = {**thinking, "budget_tokens": max(_LEAST_BUDGET, stated // 2)}
        else:
            del body["thinking"]


def _effort(wanted: str, model: str) -> str:
    """The nearest effort that the model knows, the greater of two."""
    known = next((efforts for name, efforts in _EFFORTS if re.match(name, model)), ())
    if wanted in known or wanted not in _EFFORT_ORDER or not known:
        return wanted
    place = _EFFORT_ORDER.index(wanted)
    return min(reversed(known), key=lambda each: abs(_EFFORT_ORDER.index(each) - place))


def _without_thoughts(message: Any) -> Any:
    if not isinstance(message, Mapping) or not isinstance(message.get("content"), list):
        return message
    kept = [p for p in message["content"] if _type(p) not in ("thinking", "redacted_thinking")]
    return {**message, "content": kept or ""}


def _type(part: Any) -> Any:
    return part.get("type") if isinstance(part, Mapping) else None


def _is_of(value: Any, prefix: str) -> bool:
    return isinstance(value, str) and value.startswith(prefix)
