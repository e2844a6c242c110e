"""What errors say, to people and to programs."""

from __future__ import annotations

import json
import math
import pickle
import re
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotaguard import (
    BackendError,
    ConfigurationError,
    Guard,
    GuardedOpenAI,
    ModelNotAllowed,
    QuotaExceeded,
    QuotaguardError,
    RequestTooLarge,
    Tier,
    UnmeteredEndpoint,
)
from quotaguard.testing import FakeClock, FakeProvider

FACTS: dict[str, Any] = {
    "who": "user alice",
    "limit": "10k tokens/day",
    "metric": "tokens",
    "asked": 1234.0,
    "left": -56.5,
    "capacity": 10_000.0,
    "retry_after": 42.0,
    "model": "gpt-4o",
}
NOT_ALLOWED = ModelNotAllowed(model="o1", tier="free", allowed=("gpt-4o*", "claude-*"))
EVERY = [
    QuotaguardError("all"),
    ConfigurationError("limits is wrong"),
    BackendError("the ledger is away"),
    UnmeteredEndpoint("realtime is not metered"),
    NOT_ALLOWED,
    QuotaExceeded(**FACTS),
    QuotaExceeded(**FACTS, note="; seen twice"),
    RequestTooLarge(**FACTS | {"retry_after": math.inf}),
]


@pytest.mark.parametrize(
    ("error", "parent", "status", "code"),
    [
        (ConfigurationError, ValueError, None, None),
        (QuotaExceeded, QuotaguardError, 429, "quota_exceeded"),
        (RequestTooLarge, QuotaExceeded, 429, "request_too_large"),
        (ModelNotAllowed, QuotaguardError, 403, "model_not_allowed"),
        (UnmeteredEndpoint, QuotaguardError, 403, None),
        (BackendError, QuotaguardError, 503, None),
    ],
)
def test_the_tree(error: type, parent: type, status: int | None, code: str | None) -> None:
    """Every error is a QuotaguardError, with the HTTP status that a server would answer."""
    assert issubclass(error, QuotaguardError)
    assert issubclass(error, parent)
    assert getattr(error, "status_code", None) == status
    assert getattr(error, "code", None) == code


def test_refusals_are_told_apart() -> None:
    """A missing right is no missing room, and neither is a backend that is away."""
    for one, other in [(ModelNotAllowed, QuotaExceeded), (BackendError, QuotaExceeded)]:
        assert not issubclass(one, other)
        assert not issubclass(other, one)


def test_quota_exceeded_says_who_what_and_when() -> None:
    """The sentence holds the owner, the limit, what was asked, what is left and the wait."""
    assert str(QuotaExceeded(**FACTS, note="!")) == (
        "user alice is over the limit of 10k tokens/day: the request needs 1,234 tokens, "
        "-56.50 of 10,000 are left; try again in 42 s!"
    )


def test_request_too_large_says_that_waiting_cannot_help() -> None:
    """It names what is needed and what the bucket can hold, and no time to come back."""
    said = str(RequestTooLarge(**FACTS | {"asked": 12_000, "retry_after": math.inf}))
    assert said == (
        "user alice can never make this request under the limit of 10k tokens/day: it needs "
        "12,000 tokens, and the bucket holds at most 10,000"
    )


def test_model_not_allowed_says_what_is() -> None:
    """The model, the tier and the tier's models."""
    assert str(NOT_ALLOWED) == ("model 'o1' is not part of tier 'free'; allowed: gpt-4o*, claude-*")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.01, "0.1 s"),
        (1.5, "1.5 s"),
        (9.95, "10 s"),
        (10.2, "11 s"),
        (119.5, "120 s"),
        (120, "2 min"),
        (121, "3 min"),
        (7141, "2 h"),
        (86_400, "24 h"),
    ],
)
def test_waits_for_people(seconds: float, said: str) -> None:
    """Tenths, seconds, minutes, hours: as coarse as one cares about."""
    assert str(QuotaExceeded(**FACTS | {"retry_after": seconds})).endswith(f"try again in {said}")


@given(st.floats(0, 1e7))
def test_waits_for_people_are_never_too_short(seconds: float) -> None:
    """Who comes back after what the sentence says comes late enough."""
    said = str(QuotaExceeded(**FACTS | {"retry_after": seconds}))
    found = re.search(r"in ([\d.e+]+) (s|min|h)$", said)
    assert found is not None
    assert float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[2]] >= seconds - 1e-9


def test_facts_as_attributes_and_as_json() -> None:
    """`as_dict` holds every fact, and JSON gives it back."""
    error = QuotaExceeded(**FACTS, note="!")
    assert {key: getattr(error, key) for key in FACTS} == FACTS
    assert json.loads(json.dumps(error.as_dict(), allow_nan=False)) == FACTS
    told = json.loads(json.dumps(NOT_ALLOWED.as_dict()))
    assert told == {"model": "o1", "tier": "free", "allowed": ["gpt-4o*", "claude-*"]}


def test_never_is_null_in_json() -> None:
    """JSON has no infinity."""
    error = RequestTooLarge(**FACTS | {"retry_after": math.inf})
    assert json.loads(json.dumps(error.as_dict(), allow_nan=False))["retry_after"] is None
    assert error.retry_after == math.inf


@pytest.mark.parametrize("error", EVERY, ids=[type(error).__name__ for error in EVERY])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_errors_are_the_same(error: QuotaguardError, protocol: int) -> None:
    """They come out of worker processes with their class, message and facts."""
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_the_ledger_refuses_with_these_facts() -> None:
    """A guard's own refusal: who, which limit, asked, left and when."""
    guard = Guard(limits=["60 tokens/minute", "2 requests/minute per org"], clock=FakeClock())
    with guard.hold(user="alice", org="acme", input_tokens=50, output_tokens=0):
        pass  # charged as reserved
    with pytest.raises(QuotaExceeded) as full:
        guard.hold(user="alice", org="acme", input_tokens=20, output_tokens=5).__enter__()
    assert not isinstance(full.value, RequestTooLarge)
    assert full.value.limit == "60 tokens/minute"
    assert "alice" in full.value.who
    assert (full.value.asked, full.value.left, full.value.capacity) == (25, 10, 60)
    assert full.value.retry_after == pytest.approx(15, abs=0.01)
    with pytest.raises(RequestTooLarge) as large:
        guard.hold(user="alice", input_tokens=61, output_tokens=0).__enter__()
    assert (large.value.asked, large.value.retry_after) == (61, math.inf)


def test_a_client_s_refusals_travel_as_plain_ones() -> None:
    """They are the SDK's errors too; its response object stays behind."""
    guard = Guard(tiers=[Tier("free", ["1 token/day"], ["gpt-4o"])], anonymous="anyone")
    with FakeProvider() as provider:
        client = GuardedOpenAI(api_key="test", base_url=provider.openai_url, guard=guard)
        ask = client.chat.completions.create
        messages: Any = [{"role": "user", "content": "How large am I?"}]
        with pytest.raises(openai.RateLimitError) as large:
            ask(model="gpt-4o", messages=messages)
        with pytest.raises(openai.PermissionDeniedError) as other:
            ask(model="o1", messages=messages)
        client.close()
    for error, plain in [(large.value, RequestTooLarge), (other.value, ModelNotAllowed)]:
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is plain
        assert isinstance(error, plain)
        assert again.as_dict() == error.as_dict()
        assert str(again) == str(error)
