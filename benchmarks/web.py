"""A FastAPI app under quotas: two uvicorn workers, a real Redis, and the same app without a guard.

    python -m benchmarks.web [--rounds N] [--clients N]

It starts a redis-server of its own. Looked at: statuses and fields of many requests at once, that
no more is admitted than there is, what the guard adds to a request (interleaved with the bare app,
against a provider that answers at once), and what clients that hang up in the middle of a stream
leave behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from statistics import median

import benchmarks.clients
from benchmarks.rounds import compare
from quotaguard import Guard
from quotaguard.testing import FakeProvider
from tests.backends.redis_server import RedisServer
from tests.contrib.web import load


def admission(port: int, guard: Guard) -> None:
    """Twenty users, each with more requests than fit, all at once."""
    users = [f"narrow-{number}" for number in range(20)]

    async def everybody() -> list[list[load.Answer]]:
        return await asyncio.gather(
            *(load.crowd(port, "/guarded/chat", 100, 10, user=u, tier="narrow") for u in users)
        )

    found = asyncio.run(everybody())
    most = load.NARROW // load.COST
    over, statuses, workers = 0, Counter[int](), Counter[int]()
    for user, answers in zip(users, found, strict=True):
        passed = load.admitted(answers)  # statuses, fields and bodies
        (state,) = guard.peek(user=user, tier="narrow")
        over += passed > most or state.left != load.NARROW - load.COST * passed or state.held != 0
        statuses.update(answer.status for answer in answers)
        workers.update(answer.body["worker"] for answer in answers if answer.status == 200)
    print(
        f"{len(users)} users, 100 requests each, 10 at once: statuses {dict(statuses)}; at most "
        f"{most} of a user fit; users with more admitted, charged wrongly or holding: {over}; "
        f"admitted by worker: {sorted(workers.values())}"
    )


def latency(port: int, rounds: int) -> None:
    """One client, a connection for each request: workers' kept connections have Nagle's delay."""
    loop = asyncio.new_event_loop()
    with contextlib.closing(loop):

        def asker(path: str) -> Callable[[], object]:
            return lambda: loop.run_until_complete(load.ask(port, path, "ann"))

        askers = {name: asker(f"/{name}/chat") for name in ("bare", "guarded")}
        timed = compare(askers, rounds=rounds, each=50)
    bare, guarded = timed["bare"].wall, timed["guarded"].wall
    print(
        f"one client: bare {1e3 * bare:.2f} ms, guarded +{1e3 * (guarded - bare):.2f} ms, "
        f"x {guarded / bare:.3f}"
    )


def throughput(port: int, rounds: int, at_once: int = 16, requests: int = 200) -> None:
    """Many clients, a connection for each request."""
    rates: dict[str, list[float]] = {"bare": [], "guarded": []}
    names = list(rates)
    for number in range(-1, rounds):  # the first is for warming up
        for name in names if number % 2 else reversed(names):
            began = time.perf_counter()
            asyncio.run(load.crowd(port, f"/{name}/chat", requests, at_once, user="ann"))
            if number >= 0:
                rates[name].append(requests / (time.perf_counter() - began))
    bare, guarded = median(rates["bare"]), median(rates["guarded"])
    print(
        f"{at_once} clients at once: bare {bare:.0f} requests/s, guarded {guarded:.0f}, "
        f"x {bare / guarded:.3f} of the time"
    )


def hang_ups(port: int, guard: Guard, clients: int) -> None:
    """Each is given up after some pieces, closed or reset."""
    users = [f"gone-{number % 100}" for number in range(clients)]
    began = time.perf_counter()
    got = asyncio.run(load.hang_ups(port, users, 100, seed=7))
    took = time.perf_counter() - began
    waited = load.seconds_until_free(guard, sorted(set(users)))
    rest = load.held(guard, sorted(set(users)))
    print(
        f"{clients} clients hang up in the middle of a stream ({got} had got some of it), in "
        f"{took:.1f} s: {rest:.0f} tokens held {waited:.1f} s after the last"
    )


def main() -> None:
    """Print one line for each question."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--clients", type=int, default=1_000)
    options = parser.parse_args()
    server = RedisServer()
    guard = load.watcher(server.url)
    try:
        with benchmarks.clients.server() as url, load.workers(server.url, f"{url}/v1") as port:
            latency(port, options.rounds)
            throughput(port, options.rounds)
        with FakeProvider(load.reply, remember=1) as provider:  # noqa: SIM117
            with load.workers(server.url, provider.openai_url) as port:
                admission(port, guard)
                hang_ups(port, guard, options.clients)
    finally:
        guard.close()
        server.stop()


if __name__ == "__main__":
    main()
