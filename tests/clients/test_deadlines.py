"""How long a call of a guarded client may stand in line: no longer than its own timeout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from quotaguard import Guard, QuotaExceeded, Wait, receipt
from quotaguard.patience import patient
from quotaguard.testing import FakeClock, FakeProvider
from tests.clients.calls import BOTH, create
from tests.clients.clients import Kind
from tests.clients.kit import got, http_library, new_guard, run


class Caller(NamedTuple):
    """One call of one kind of client, where the bucket is empty for a minute."""

    way: str
    kind: Kind
    holder: str
    arguments: dict[str, Any]
    provider: FakeProvider

    def waited(self, guard: Guard, adapt: Callable[[Any], Any] | None = None, **more: Any) -> float:
        """Seconds that the call waited."""

        async def scenario() -> float:
            client = self.kind.make(self.way, self.provider, guard)
            calling = client if adapt is None else adapt(client)
            try:
                answer = await got(create(calling, self.holder)(**self.arguments, **more))
            finally:
                await got(client.close())
            return receipt(answer).waited

        waited: float = run(scenario())
        return waited


@pytest.fixture(params=BOTH, ids=["openai", "anthropic"])
def caller(request: pytest.FixtureRequest, way: str, provider: FakeProvider) -> Caller:
    """A caller of each SDK, blocking and awaiting."""
    return Caller(way, *request.param, provider)


def empty(max_seconds: float = 3600.0) -> Guard:
    """A guard whose next call would have to wait a minute."""
    guard = new_guard(
        limits=["1 requests/minute"],
        clock=FakeClock(),
        when_exceeded=Wait(max_seconds, backoff=None),
    )
    with guard.hold(user="somebody"):
        pass
    return guard


def parts(client: Any) -> Any:
    """The client with a timeout in parts, of which one bounds the wait."""
    timeout = http_library(client).Timeout(3600.0, pool=59.0)
    return client.with_options(timeout=timeout)


@pytest.mark.parametrize(
    ("adapt", "more"),
    [(None, {"timeout": 59}), (lambda c: c.with_options(timeout=59.0), {}), (parts, {})],
    ids=["request", "client", "parts"],
)
def test_a_wait_beyond_the_timeout_is_refused_at_once(
    caller: Caller, adapt: Callable[[Any], Any] | None, more: dict[str, Any]
) -> None:
    """The error says how long it would have taken; nobody waited, nothing was sent."""
    guard = empty()
    before = guard.clock.now()
    with pytest.raises(QuotaExceeded) as refusal:
        caller.waited(guard, adapt, **more)
    assert refusal.value.retry_after == pytest.approx(60.0)
    assert guard.clock.now() == before
    assert caller.provider.requests == []


@pytest.mark.parametrize("options", [{}, {"timeout": 61}, {"timeout": None}], ids=str)
def test_a_wait_within_the_timeout_goes_on(caller: Caller, options: dict[str, Any]) -> None:
    """Nor is the SDK's default of ten minutes anybody's wish."""
    assert caller.waited(empty(), **options) == pytest.approx(60.0)


def test_the_default_timeout_bounds_no_wait(caller: Caller) -> None:
    """Who waits for an hour says so in the policy alone."""
    guard = empty()
    guard.grant(-20, user="somebody", metric="requests")
    assert caller.waited(guard) == pytest.approx(21 * 60.0)


def test_the_policys_patience_still_counts(caller: Caller) -> None:
    """A long timeout makes nobody wait longer than the policy says."""
    with pytest.raises(QuotaExceeded):
        caller.waited(empty(59), timeout=1000)


def test_no_time_is_no_wait(caller: Caller) -> None:
    """A timeout of 0 is refused by the limit, not by a policy that cannot be made."""
    with pytest.raises(QuotaExceeded):
        caller.waited(empty(), timeout=0)


def test_a_jobs_patience_goes_before_the_timeout(caller: Caller) -> None:
    """In a batch job a timeout is about the request, which begins when the wait is over."""
    with patient(Wait(100, backoff=None)):
        assert caller.waited(empty(1), timeout=5) == pytest.approx(60.0)
