"""A provider and a guard for each test of guarded clients."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import anthropic
import openai
import pytest

from quotaguard import Guard, GuardedOpenAI, errands
from quotaguard.counting import count_text
from quotaguard.testing import FakeProvider
from tests.clients.kit import WAYS, new_guard
from tests.clients.learning import learning, made
from tests.clients.talk import SOURCES, Talk

collect_ignore = []
"""What the installed versions of the SDKs do not have."""
if not hasattr(openai.OpenAI(api_key="test"), "responses"):
    collect_ignore.append("test_background.py")
if not hasattr(anthropic.Anthropic, "with_middleware"):
    collect_ignore.append("test_credentials.py")


@pytest.fixture(scope="session", autouse=True)
def _tokenizers_are_loaded() -> None:
    """Only the first asynchronous call of a process waits for them, in a thread."""
    for model in ("gpt-4o", "claude-sonnet-4-5"):
        count_text("a first text", model)


@pytest.fixture
def provider() -> Iterator[FakeProvider]:
    """A provider that answers everything with the default reply."""
    with FakeProvider() as provider:
        yield provider


@pytest.fixture
def guard() -> Guard:
    """A guard with room for everything."""
    return new_guard()


@pytest.fixture
def learner(no_helper: None) -> Guard:
    """A guard that learns the provider's limits, and has none of its own."""
    return learning()


@pytest.fixture
def no_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was learnt is put right before a guard's next call, and not by a thread meanwhile."""
    monkeypatch.setattr(errands, "soon", lambda _: None)


@pytest.fixture
def client(learner: Guard, provider: FakeProvider) -> Iterator[GuardedOpenAI]:
    """A client of that guard."""
    with made(learner, provider) as client:
        yield client


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    """The kind of client: ``sync`` or ``async``."""
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def quick_collections() -> Iterator[None]:
    """What was there before need not be looked at: a collection takes long with two SDKs loaded."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What a held stream waits for; given at the end of the test at the latest."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(params=SOURCES, ids=str)
def talk(request: pytest.FixtureRequest, way: str, provider: FakeProvider) -> Iterator[Talk]:
    """A consumer of each kind of stream, with each kind of client."""
    talk = Talk(way, request.param, provider)
    yield talk
    talk.stream = None
    gc.collect()
