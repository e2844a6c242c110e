"""Fixtures of the integrations' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contrib.telemetry import Recorded


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    """Providers of a test's own."""
    made = Recorded()
    yield made
    made.meter_provider.shutdown()
