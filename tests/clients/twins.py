"""Each class of the SDKs beside the one that takes its place."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

import quotaguard
from tests.clients.kit import WAYS, new_guard

OPENAI: dict[str, Any] = {"api_key": "test", "base_url": "http://localhost/v1"}
AZURE: dict[str, Any] = {
    "api_key": "test",
    "api_version": "2024-10-21",
    "azure_endpoint": "http://localhost",
}
SDKS = {
    "OpenAI": (openai, OPENAI),
    "AzureOpenAI": (openai, AZURE),
    "Anthropic": (anthropic, OPENAI),
}
CLASSES = [
    pytest.param(
        getattr(sdk, name if way == "sync" else f"Async{name}"),
        getattr(quotaguard, f"Guarded{name}" if way == "sync" else f"AsyncGuarded{name}"),
        settings,
        id=f"{way}-{name}",
    )
    for way in WAYS
    for name, (sdk, settings) in SDKS.items()
]
each_class = pytest.mark.parametrize(("plain", "guarded", "settings"), CLASSES)


def both(plain: Any, guarded: Any, **settings: Any) -> tuple[Any, Any]:
    """The plain client and the guarded one, made alike."""
    return plain(**settings), guarded(**settings, guard=new_guard())


def state(client: Any) -> dict[str, Any]:
    """What the options of a client amount to."""
    return {
        "headers": {
            name: value if isinstance(value, str) else type(value)
            for name, value in client.default_headers.items()
        },
        "query": client.default_query,
        "url": str(client.base_url),
        "timeout": client.timeout,
        "retries": client.max_retries,
        "key": client.api_key,
        "strict": client._strict_response_validation,
    }
