"""Workers that learn a provider's limits: it hardly ever refuses a call, and is used to the full.

The provider is `FakeProvider` over real HTTP, with limits of its own. Its clock and the guards' are
one that the test moves whenever everybody waits for it, so minutes take no time and results do not
depend on how fast the machine is.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anthropic
import openai
import pytest

from quotaguard import Guard, GuardedAnthropic, GuardedOpenAI, Wait, receipt
from quotaguard.testing import FakeClock, FakeProvider, Reply
from quotaguard.testing.provider import Seen

if TYPE_CHECKING:
    from .redis_server import RedisCluster

MINUTE = 60.0
MINUTES = 3
WORKERS = 12
STEP = 0.1
"""Seconds that pass at once."""
TPM, RPM = 20_000, 120
MOST_OUTPUT = 200
OTHER = [{"role": "user", "content": "somebody else"}]
PATIENCE = 20.0
"""Real seconds after which somebody is stuck."""


class Result(NamedTuple):
    """A call that ended: when, in seconds from the start, and what it used; None: refused."""

    at: float
    tokens: int | None


class Traffic:
    """Workers that call as fast as they are let, for some simulated minutes.

    Args:
        provider: gives the provider its limits: the arguments of a `FakeProvider`.
        guards: makes the guards, each of which serves some of the workers.
        streaming: whether the answers come slowly, so that the provider charges calls when they
            begin, or all at once after a while, so that it charges them when they end.
        others: calls a minute, of 250 tokens, by somebody with the same key and no guard.
    """

    def __init__(
        self,
        guards: Callable[[FakeClock], list[Guard]],
        streaming: bool = False,
        others: int = 0,
        **limits: Any,
    ) -> None:
        self.clock = FakeClock(auto_advance=False)
        self._began = self.clock.now()
        self._guards = guards(self.clock)
        self._limits = limits
        self._streaming = streaming
        self._others = others
        self.theirs: list[Result] = []
        """What came of the others' calls."""
        self._chance = random.Random(7)
        self._lock = threading.Lock()
        self._streams: list[tuple[float, threading.Event]] = []
        """When streams go on, and what they wait for."""
        self._results: list[Result] = []
        self._busy = WORKERS

    def run(self, client: type) -> list[Result]:
        """What came of the calls, in the order in which they ended."""
        with ExitStack() as stack:
            provider = stack.enter_context(
                FakeProvider(self._reply, clock=self.clock.now, **self._limits)
            )
            for guard in self._guards:
                stack.callback(guard.close)
            url = provider.openai_url if client is GuardedOpenAI else provider.anthropic_url
            clients = [
                stack.enter_context(
                    client(guard=guard, base_url=url, api_key="sk-shared", max_retries=0)
                )
                for guard in self._guards
            ]
            workers = [
                threading.Thread(target=self._work, args=(number, clients[number % len(clients)]))
                for number in range(WORKERS)
            ]
            other = openai.OpenAI(base_url=url, api_key="sk-shared", max_retries=0)
            stack.enter_context(other)
            for worker in workers:
                worker.start()
            while self._busy:
                self._until_all_wait()
                self.clock.advance(STEP)
                self._go_on()
                now = self.clock.now() - self._began
                if now * self._others > len(self.theirs) * MINUTE:
                    self.theirs.append(Result(now, self._call(other, OTHER)))
            for worker in workers:
                worker.join()
        return sorted(self._results, key=lambda result: result.at)

    def _reply(self, seen: Seen) -> Reply:
        if seen.body["messages"] == OTHER:
            return Reply(input_tokens=150, output_tokens=100)
        with self._lock:
            output = self._chance.randrange(20, MOST_OUTPUT)
            seconds = self._chance.uniform(0.2, 2.0)
            if self._streaming:
                goes_on = threading.Event()
                self._streams.append((self.clock.now() + seconds, goes_on))
                return Reply(output_tokens=output, hold_after=(0, goes_on))
        self.clock.wait(threading.Event(), seconds)
        return Reply(output_tokens=output)

    def _work(self, number: int, client: Any) -> None:
        chance = random.Random(number)
        try:
            while (now := self.clock.now() - self._began) < MINUTES * MINUTE:
                prompt = " ".join(["word"] * chance.randrange(10, 200))
                tokens = self._call(client, [{"role": "user", "content": prompt}])
                now = self.clock.now() - self._began
                self._results.append(Result(now, tokens))
        finally:
            with self._lock:
                self._busy -= 1

    def _call(self, client: Any, messages: list[dict[str, str]]) -> int | None:
        try:
            if isinstance(client, anthropic.Anthropic):
                message = client.messages.create(
                    model="claude-opus-5", messages=messages, max_tokens=MOST_OUTPUT
                )
                return int(message.usage.input_tokens + message.usage.output_tokens)
            asked = {"model": "gpt-4o", "messages": messages, "max_tokens": MOST_OUTPUT}
            if self._streaming:
                asked |= {"stream": True, "stream_options": {"include_usage": True}}
            answer = client.chat.completions.create(**asked)
            last = list(answer)[-1] if self._streaming else answer
            return int(last.usage.total_tokens)
        except (openai.RateLimitError, anthropic.RateLimitError):
            return None

    def _until_all_wait(self) -> None:
        """Nobody is on the way any more: all wait for the clock."""
        stuck = time.monotonic() + PATIENCE
        while self.clock.waiting + len(self._streams) < self._busy:
            time.sleep(0.0002)
            assert time.monotonic() < stuck, f"stuck at {self.clock.now() - self._began:.1f} s"

    def _go_on(self) -> None:
        with self._lock:
            for stream in [s for s in self._streams if s[0] <= self.clock.now()]:
                self._streams.remove(stream)
                stream[1].set()


def learning(backend: str, count: int) -> Callable[[FakeClock], list[Guard]]:
    """Guards that share a ledger, as the processes of a fleet do."""

    def make(clock: FakeClock) -> list[Guard]:
        return [
            Guard(when_exceeded=Wait(600), clock=clock, backend=backend, learn_provider_limits=True)
            for _ in range(count)
        ]

    return make


@pytest.fixture(params=["memory", "sqlite", "redis"])
def guards(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[FakeClock], list[Guard]]]:
    """A guard of one process, or four that share a ledger."""
    if request.param == "memory":
        yield learning("memory://", 1)
    elif request.param == "sqlite":
        yield learning(f"sqlite:///{tmp_path}/quota.db", 4)
    else:
        yield learning(request.getfixturevalue("server").url, 4)


def check(results: list[Result], limit: float, measure: Callable[[int], float]) -> None:
    """After the first minute the provider refuses less than 1 % of the calls, and what it lets
    through comes to within 5 % of what it allows.
    """
    later = [result for result in results if MINUTE <= result.at < MINUTES * MINUTE]
    refused = sum(result.tokens is None for result in later)
    served = sum(measure(result.tokens) for result in later if result.tokens is not None)
    allowed = limit * (MINUTES - 1)
    assert refused < 0.01 * len(later), f"{refused} of {len(later)}"
    assert 0.95 * allowed <= served <= 1.05 * allowed


def test_tokens_a_minute_are_used_to_the_full(
    guards: Callable[[FakeClock], list[Guard]],
) -> None:
    """Twelve workers, and what they reserve is half as much again as what they use."""
    results = Traffic(guards, tpm=TPM).run(GuardedOpenAI)
    check(results, TPM, float)


def test_requests_a_minute_are_used_to_the_full() -> None:
    """The other limit, in the other provider's words."""
    results = Traffic(learning("memory://", 1), rpm=RPM, tpm=TPM * 10).run(GuardedAnthropic)
    check(results, RPM, lambda _: 1.0)


def test_streams_are_charged_when_they_begin(tmp_path: Path) -> None:
    """By the provider, that is: what is left is told long before the call is settled."""
    guards = learning(f"sqlite:///{tmp_path}/quota.db", 4)
    results = Traffic(guards, streaming=True, tpm=TPM).run(GuardedOpenAI)
    check(results, TPM, float)


def test_others_who_use_the_key_are_made_room_for() -> None:
    """Somebody who knows nothing of us takes a third of what the provider allows; it refuses next
    to none of our calls all the same, and what it allows is used to the full.
    """
    traffic = Traffic(learning("memory://", 1), others=40, tpm=TPM)
    results = traffic.run(GuardedOpenAI)
    check(results + traffic.theirs, TPM, float)
    assert sum(result.tokens is not None for result in traffic.theirs) > 35 * MINUTES


def test_a_cluster_keeps_them_beside_a_users_own(one_cluster: RedisCluster) -> None:
    """The buckets of one call are in one slot, whoever owns them."""
    with FakeProvider(tpm=TPM, rpm=RPM) as provider:
        guard = Guard(
            limits=["100 requests/day"],
            backend=one_cluster.url,
            anonymous="somebody",
            learn_provider_limits=True,
        )
        client = GuardedOpenAI(guard=guard, base_url=provider.openai_url, api_key="sk-shared")
        with client:
            for _ in range(2):
                answer = client.chat.completions.create(
                    model="gpt-4o", messages=[{"role": "user", "content": "word"}]
                )
        assert set(receipt(answer).left) == {
            "100 requests/day",
            "120 requests/minute (the provider's)",
            "20k tokens/minute (the provider's)",
        }
        guard.close()
