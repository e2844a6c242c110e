"""A provider and a guard for each test of guarded clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from quotaguard import Guard
from quotaguard.testing import FakeProvider
from tests.clients.kit import WAYS, new_guard


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """A provider that answers everything with the default reply."""
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def guard() -> Guard:
    """A guard with room for everything."""
    return new_guard()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """The kind of client: ``sync`` or ``async``."""
    found: str = request.param
    return found
