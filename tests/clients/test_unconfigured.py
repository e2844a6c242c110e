"""Clients that are given no guard."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path

import openai
import pytest

import quotaguard
from quotaguard import config
from quotaguard.clients.seam import QUOTA_ARGUMENTS
from quotaguard.testing import FakeProvider, disabled
from tests.clients.twins import CLASSES


@pytest.fixture
def _nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A directory without a file, and a process that has not made its default guard yet."""
    monkeypatch.chdir(tmp_path)
    config._default.cache_clear()


@pytest.mark.usefixtures("_nothing_configured")
def test_a_bare_client_meters_and_limits_nothing(
    provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    """It works as the plain one does, has receipts, and says once that nothing is limited."""
    caplog.set_level(logging.WARNING, "quotaguard")
    clients = [
        quotaguard.GuardedOpenAI(api_key="test", base_url=provider.openai_url) for _ in range(2)
    ]
    for client in (*clients, clients[0].copy()):
        answer = client.chat.completions.create(model="gpt-4o", messages=[])
        used = quotaguard.receipt(answer).used
        assert used is not None
        assert used.tokens > 0
    said = [record for record in caplog.records if "without limiting" in record.message]
    assert len(said) == 1
    for client in clients:
        client.close()


@pytest.mark.usefixtures("_nothing_configured")
def test_limits_of_the_environment(provider: FakeProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that are given no guard share the one that the environment describes."""
    monkeypatch.setenv("QUOTAGUARD_LIMITS", "1 request/day")
    one, two = (
        quotaguard.GuardedOpenAI(api_key="test", base_url=provider.openai_url) for _ in range(2)
    )
    one.chat.completions.create(model="gpt-4o", messages=[])
    with pytest.raises(openai.RateLimitError, match="1 requests/day"):
        two.chat.completions.create(model="gpt-4o", messages=[])
    with disabled():
        two.chat.completions.create(model="gpt-4o", messages=[])
    one.close()
    two.close()


def test_the_quota_arguments_are_no_arguments_of_the_sdks() -> None:
    """Ours would hide theirs."""
    for plain, *_ in (param.values for param in CLASSES):
        names = {
            *inspect.signature(plain.__init__).parameters,
            *inspect.signature(plain.copy).parameters,
        }
        assert names.isdisjoint(QUOTA_ARGUMENTS)
