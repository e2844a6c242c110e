"""A provider for each test, and clients of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import anthropic
import openai
import pytest

from quotaguard.testing.provider import FakeProvider
from tests.testing.provider.calls import Call, RawClient, caller


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """A provider that answers everything with the default reply."""
    with FakeProvider() as provider:
        yield provider


@pytest.fixture(params=["sync", "async"])
def by_openai(request: pytest.FixtureRequest, provider: FakeProvider) -> Call:
    """Calls the provider with OpenAI's client."""
    settings = {"base_url": provider.openai_url, "api_key": "test", "max_retries": 0}
    return caller(openai.OpenAI, openai.AsyncOpenAI, request.param, **settings)


@pytest.fixture(params=["sync", "async"])
def by_anthropic(request: pytest.FixtureRequest, provider: FakeProvider) -> Call:
    """Calls the provider with Anthropic's client."""
    settings = {"base_url": provider.anthropic_url, "api_key": "test", "max_retries": 0}
    return caller(anthropic.Anthropic, anthropic.AsyncAnthropic, request.param, **settings)


@pytest.fixture
def raw(provider: FakeProvider) -> Iterator[RawClient]:
    """Calls the provider with the standard library, on one kept connection."""
    client = RawClient(provider.url)
    with contextlib.closing(client.connection):
        yield client
