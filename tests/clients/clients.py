"""The clients: every class that can be guarded, made for a provider on this machine."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import anthropic
import openai

import quotaguard
from quotaguard import Guard
from quotaguard.testing import FakeProvider


class Mine(openai.OpenAI):
    """A user's own subclass, with an argument of its own."""

    def __init__(self, *, house: str = "none", **more: Any) -> None:
        super().__init__(**more)
        self.house = house

    @property
    def default_headers(self) -> dict[str, Any]:
        """The SDK's, and the house's."""
        return {**super().default_headers, "x-house": self.house}


class AsyncMine(openai.AsyncOpenAI):
    """Its twin."""

    def __init__(self, *, house: str = "none", **more: Any) -> None:
        super().__init__(**more)
        self.house = house

    @property
    def default_headers(self) -> dict[str, Any]:
        """The SDK's, and the house's."""
        return {**super().default_headers, "x-house": self.house}


class GuardedMine(quotaguard.GuardedOpenAI):
    """A user's subclass of the guarded class."""


class AsyncGuardedMine(quotaguard.AsyncGuardedOpenAI):
    """Its twin."""


class Kind(NamedTuple):
    """A client to be tested: how to make one in each way, by name of the way."""

    name: str
    classes: dict[str, Any]
    settings: Callable[[FakeProvider], dict[str, Any]]
    wrapped: bool = False
    """Whether somebody else builds it, and the guard wraps it."""

    def make(self, way: str, provider: FakeProvider, guard: Guard, **more: Any) -> Any:
        """A guarded client of that provider."""
        settings = {"max_retries": 0, **self.settings(provider), **more}
        if self.wrapped:
            return guard.wrap(self.classes[way](**settings))
        return self.classes[way](guard=guard, **settings)

    def __str__(self) -> str:
        return self.name


def _by_way(module: Any, name: str, is_async: str) -> dict[str, Any]:
    """The blocking and the awaiting class of a name; empty where the SDK has none."""
    found = {"sync": getattr(module, name, None), "async": getattr(module, is_async, None)}
    return found if all(found.values()) else {}


def _guarded(name: str) -> dict[str, Any]:
    return _by_way(quotaguard, f"Guarded{name}", f"AsyncGuarded{name}")


def _openai(provider: FakeProvider) -> dict[str, Any]:
    return {"base_url": provider.openai_url, "api_key": "test"}


def _azure(provider: FakeProvider) -> dict[str, Any]:
    return {"azure_endpoint": provider.url, "api_key": "test", "api_version": "2024-10-21"}


def _azure_deployment(provider: FakeProvider) -> dict[str, Any]:
    return {**_azure(provider), "azure_deployment": "my deployment"}


def _anthropic(provider: FakeProvider) -> dict[str, Any]:
    return {"base_url": provider.anthropic_url, "api_key": "test"}


def _bedrock(provider: FakeProvider) -> dict[str, Any]:
    keys = {"aws_access_key": "test", "aws_secret_key": "test", "aws_region": "us-east-1"}
    return {"base_url": provider.anthropic_url, **keys}


def _aws(provider: FakeProvider) -> dict[str, Any]:
    return {**_bedrock(provider), "workspace_id": "test"}


def _vertex(provider: FakeProvider) -> dict[str, Any]:
    cloud = {"region": "us-east5", "project_id": "test", "access_token": "test"}
    return {"base_url": provider.openai_url, **cloud}


PLAIN_OPENAI = Kind("GuardedOpenAI", _guarded("OpenAI"), _openai)
PLAIN_ANTHROPIC = Kind("GuardedAnthropic", _guarded("Anthropic"), _anthropic)

OPENAI = (
    Kind("GuardedAzureOpenAI", _guarded("AzureOpenAI"), _azure),
    Kind("GuardedAzureOpenAI-deployment", _guarded("AzureOpenAI"), _azure_deployment),
    Kind("GuardedMine", {"sync": GuardedMine, "async": AsyncGuardedMine}, _openai),
    Kind("OpenAI", _by_way(openai, "OpenAI", "AsyncOpenAI"), _openai, wrapped=True),
    Kind("AzureOpenAI", _by_way(openai, "AzureOpenAI", "AsyncAzureOpenAI"), _azure, wrapped=True),
    Kind("Mine", {"sync": Mine, "async": AsyncMine}, _openai, wrapped=True),
)


def _platforms() -> list[Kind]:
    """Anthropic's clients of other clouds, where they and what they need are installed."""
    needs = {"Bedrock": "botocore", "AWS": "botocore", "Vertex": "google", "Foundry": "anthropic"}
    settings = {"Bedrock": _bedrock, "AWS": _aws, "Vertex": _vertex, "Foundry": _anthropic}
    return [
        Kind(f"Anthropic{name}", classes, settings[name], wrapped=True)
        for name, module in needs.items()
        if (classes := _by_way(anthropic, f"Anthropic{name}", f"AsyncAnthropic{name}"))
        and find_spec(module) is not None
    ]


ANTHROPIC = (
    Kind("Anthropic", _by_way(anthropic, "Anthropic", "AsyncAnthropic"), _anthropic, wrapped=True),
    *_platforms(),
)
