"""What the tests of web apps share; they are skipped where FastAPI or uvicorn is not installed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from quotaguard import Guard
from quotaguard.testing import FakeClock, FakeProvider, Reply

if TYPE_CHECKING:
    from fastapi import FastAPI


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """A provider whose answers all cost the same: `COST` tokens."""
    with FakeProvider(Reply(text="a b c d", input_tokens=12, output_tokens=7)) as provider:
        yield provider


@pytest.fixture
def guard() -> Guard:
    """A guard at a time that stands still: midnight."""
    return Guard(limits=["100 tokens/day", "60 requests/minute"], clock=FakeClock())


@pytest.fixture
def serve(guard: Guard, provider: FakeProvider) -> Iterator[Callable[..., int]]:
    """Serves an app, by default `chat_app` under ``guard``, until the test ends; gives the port."""
    from .chat_app import chat_app
    from .server import serving

    with contextlib.ExitStack() as stack:

        def start(app: FastAPI | None = None) -> int:
            return stack.enter_context(serving(app or chat_app(guard, provider)))

        yield start
