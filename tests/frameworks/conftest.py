"""What the tests of frameworks share. They run where the frameworks are: `make test-frameworks`."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from quotaguard.testing import FakeProvider

collect_ignore_glob: list[str] = []
if find_spec("langchain_openai") is None:  # `make test` has the SDKs and no framework
    collect_ignore_glob.append("test_*.py")

HERE = Path(__file__).parent
OFFLINE = {
    "DSPY_CACHEDIR": os.devnull,
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
}
"""What keeps the frameworks from calling home, or from writing to it."""

THEIRS = (
    "ignore::pydantic.PydanticDeprecatedSince20",  # classes named Config, in OpenLLMetry
    "ignore::pydantic.warnings.PydanticDeprecatedSince211",  # LiteLLM, about its own models
    "ignore:Item .* is using the `ReadOnly` qualifier:UserWarning",  # LiteLLM's types
    "ignore:unclosed:ResourceWarning",  # frameworks leave clients to the garbage collector
)
"""Warnings that others have to mend."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Exempt other people's code, in this folder only."""
    for item in items:
        if HERE in item.path.parents:
            for warning in THEIRS:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session", autouse=True)
def _offline() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in OFFLINE.items():
            patch.setenv(name, value)
        yield


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """A provider that answers everything with the default reply."""
    with FakeProvider() as provider:
        yield provider
    gc.collect()  # what was left open, while it is no error
