"""Events as log records: stable names, structured fields, lines that nobody can forge."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from quotaguard import Fallback, Guard, ModelNotAllowed, QuotaExceeded, Tier, Wait
from quotaguard.backends.memory import MemoryBackend
from quotaguard.contrib.logs import LogEvents
from quotaguard.core.ops import Answer, Op
from quotaguard.errors import BackendError
from quotaguard.testing import FakeClock

STORY = [
    ("DEBUG", "quotaguard.admitted"),
    ("DEBUG", "quotaguard.settled"),
    ("INFO", "quotaguard.fell_back"),
    ("DEBUG", "quotaguard.admitted"),
    ("DEBUG", "quotaguard.settled"),
    ("INFO", "quotaguard.waiting"),
    ("INFO", "quotaguard.waited"),
    ("DEBUG", "quotaguard.admitted"),
    ("DEBUG", "quotaguard.settled"),
    ("WARNING", "quotaguard.refused"),
]


def make(hook: Any, **options: Any) -> Guard:
    """A guard with a large and a small model, that waits when both are empty."""
    limits = ["100 tokens/minute for large", "100 tokens/minute for small"]
    tier = Tier("pro", limits, ["large", "small"], [Fallback("small"), Wait(60, backoff=None)])
    return Guard(tiers=[tier], clock=FakeClock(), hooks=[hook], **options)


def call(guard: Guard, model: str = "large", user: str = "alice") -> None:
    """A call that uses half of what it reserves."""
    with guard.hold(user=user, model=model, input_tokens=80, output_tokens=0) as lease:
        lease.record(input_tokens=40)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """The structured fields of a record."""
    return {name: value for name, value in vars(record).items() if "." in name}


def test_each_event_has_a_name_and_a_level(caplog: pytest.LogCaptureFixture) -> None:
    """Calls at DEBUG, detours at INFO, refusals at WARNING."""
    guard = make(LogEvents())
    with caplog.at_level(logging.DEBUG, "quotaguard.events"):
        for _ in range(3):
            call(guard)
        with pytest.raises(ModelNotAllowed):
            call(guard, "huge")
    told = [(r.levelname, fields(r)["quotaguard.event"]) for r in caplog.records]
    assert told == STORY
    assert [r.getMessage().split()[0] for r in caplog.records] == [name for _, name in STORY]


def test_the_facts_are_fields_and_text(caplog: pytest.LogCaptureFixture) -> None:
    """By the same names as on spans."""
    guard = Guard(limits=["100 tokens/day"], hooks=[LogEvents()])
    hold = guard.hold(user="alice", model="gpt-4o", input_tokens=101)
    with caplog.at_level(logging.INFO, "quotaguard.events"), pytest.raises(QuotaExceeded), hold:
        pass
    (record,) = caplog.records
    facts = fields(record)
    assert facts["quotaguard.user"] == "alice"
    assert facts["quotaguard.limit"] == "100 tokens/day"
    assert facts["quotaguard.reason"] == "request_too_large"
    assert facts["gen_ai.request.model"] == "gpt-4o"
    assert facts["quotaguard.capacity"] == 100
    assert 'quotaguard.limit="100 tokens/day"' in record.getMessage()
    assert "quotaguard.user=alice" in record.getMessage()
    json.dumps(facts)


def test_nothing_is_made_for_a_level_that_is_off(caplog: pytest.LogCaptureFixture) -> None:
    """In production the calls themselves are not told."""
    guard = make(LogEvents())
    with caplog.at_level(logging.INFO, "quotaguard.events"):
        call(guard)
    assert caplog.records == []


def test_a_user_cannot_forge_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """Line breaks and quotes in a name stay inside its value."""
    hostile = 'eve\nWARNING quotaguard.refused quotaguard.user="bob'
    logger = logging.getLogger("app.quotas")
    guard = Guard(limits=["1 requests/day"], hooks=[LogEvents(logger)])
    with caplog.at_level(logging.DEBUG, "app.quotas"):
        call(guard, user=hostile)
    for record in caplog.records:
        message = record.getMessage()
        assert "\n" not in message
        assert f"quotaguard.user={json.dumps(hostile)}" in message
        assert fields(record)["quotaguard.user"] == hostile
        assert record.name == "app.quotas"


class Away(MemoryBackend):
    def execute(self, op: Op) -> Answer:
        """Nobody answers."""
        raise BackendError("nobody answers")


def test_a_ledger_that_is_away_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    """With what was done about it."""
    guard = Guard(
        limits=["1 requests/day"],
        backend=Away(FakeClock()),
        on_backend_error="allow",
        hooks=[LogEvents()],
    )
    with caplog.at_level(logging.INFO, "quotaguard.events"):
        call(guard)
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert fields(record)["quotaguard.event"] == "quotaguard.backend_failed"
    assert fields(record)["quotaguard.outcome"] == "allowed"
