"""A web app in worker processes that share a ledger in Redis, and the crowd that asks it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from fastapi import Depends, FastAPI, Header
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI

from quotaguard import AsyncGuardedOpenAI, Guard, Identity, Tier
from quotaguard.contrib.fastapi import Quotas
from quotaguard.testing import Reply
from quotaguard.testing.provider.record import Seen
from tests.backends.redis_server import free_port

NARROW = 1_000
TIERS = [
    Tier("narrow", [f"{NARROW} tokens/month"]),
    Tier("wide", ["1B tokens/month", "1M requests/minute"]),
]
SECONDS_TO_START = 30.0
PATIENT = ("--backlog", "4096", "--timeout-keep-alive", "60", "--timeout-worker-healthcheck", "60")
"""A busy machine is no reason to end a worker, or a connection; nor to give Redis up."""


def app() -> FastAPI:
    """What each worker serves: the same app twice, ``/guarded`` and ``/bare``."""
    at: Any = {"base_url": os.environ["WEB_PROVIDER"], "api_key": "test", "max_retries": 0}
    guard = Guard(tiers=TIERS, backend=os.environ["WEB_LEDGER"])
    quotas = Quotas(guard, caller)
    guarded = chat_app(AsyncGuardedOpenAI(guard=guard, **at), quotas.acting)
    quotas.install(guarded)
    both = FastAPI()
    both.mount("/guarded", guarded)
    both.mount("/bare", chat_app(AsyncOpenAI(**at), caller))
    return both


def caller(x_user: Annotated[str, Header()], x_tier: Annotated[str, Header()]) -> Identity:
    """Whoever the headers say."""
    return Identity(x_user, tier=x_tier)


def chat_app(client: AsyncOpenAI, acting: Any) -> FastAPI:
    """An answer, whole or streamed."""
    app = FastAPI(dependencies=[Depends(acting)])
    asked: Any = {
        "model": "gpt-4o-mini",
        "max_tokens": 10,
        "messages": [{"role": "user", "content": "three words here"}],
    }

    @app.post("/chat")
    async def chat() -> dict[str, Any]:
        answer = await client.chat.completions.create(**asked)
        return {"answer": answer.choices[0].message.content, "worker": os.getpid()}

    @app.post("/stream")
    async def stream() -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            async for chunk in await client.chat.completions.create(
                **asked | {"max_tokens": 1_000}, stream=True
            ):
                yield (chunk.choices[0].delta.content or "") if chunk.choices else ""

        return StreamingResponse(pieces(), media_type="text/plain")

    return app


@contextmanager
def workers(ledger: str, provider: str, count: int = 2) -> Iterator[int]:
    """The port that so many processes serve the app on."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", f"{__name__}:app"]
    command += ["--workers", str(count), "--port", str(port), "--log-level", "error"]
    patient = f"{ledger}?backend_timeout=30"
    env = {**os.environ, "WEB_LEDGER": patient, "WEB_PROVIDER": provider}
    root = Path(__file__).parents[3]
    process = subprocess.Popen([*command, "--ws", "none", *PATIENT], cwd=root, env=env)
    try:
        asyncio.run(_all_up(port, count, process))
        yield port
    finally:
        process.terminate()
        process.wait()


async def _all_up(port: int, count: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until each of the workers has answered."""
    deadline, seen = time.monotonic() + SECONDS_TO_START, set()
    while len(seen) < count:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the workers did not start")
        try:
            answers = await asyncio.gather(*(ask(port, "/bare/chat", "nobody") for _ in range(8)))
        except OSError:
            await asyncio.sleep(0.1)
        else:
            seen |= {answer.body["worker"] for answer in answers}


COST = 19
"""What an answer costs, in tokens."""


def reply(seen: Seen) -> Reply:
    """What a provider answers: quickly, or in a stream that takes seconds."""
    if seen.body.get("stream"):
        return Reply(text="word " * 100, input_tokens=12, chunk_latency=0.03)
    return Reply(text="a b c d", input_tokens=12, output_tokens=COST - 12, latency=0.02)


class Answer(NamedTuple):
    """What a worker said."""

    status: int
    fields: dict[str, str]
    body: Any


async def _sent(
    port: int, path: str, user: str, tier: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int, dict[str, str]]:
    """A request, and the head of its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = [f"POST {path} HTTP/1.1", "host: local", "content-length: 0", "connection: close"]
    head += [f"x-user: {user}", f"x-tier: {tier}", "", ""]
    writer.write("\r\n".join(head).encode())
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines if line)
    return reader, writer, int(first.split()[1]), {k.lower(): v for k, v in fields.items()}


async def ask(port: int, path: str, user: str, tier: str = "wide") -> Answer:
    """A whole answer."""
    reader, writer, status, fields = await _sent(port, path, user, tier)
    said = await reader.read()
    writer.close()
    return Answer(status, fields, json.loads(said))


async def crowd(port: int, path: str, requests: int, at_once: int, **who: str) -> list[Answer]:
    """Many requests of one user, so many of them at a time."""
    turn = asyncio.Semaphore(at_once)

    async def one() -> Answer:
        async with turn:
            return await ask(port, path, **who)

    return await asyncio.gather(*(one() for _ in range(requests)))


async def hang_ups(port: int, users: list[str], at_once: int, seed: int) -> int:
    """A stream for each entry, given up in the middle; how many had got something by then."""
    turn, chance = asyncio.Semaphore(at_once), random.Random(seed)

    async def one(user: str, pieces: int, abort: bool) -> bool:
        async with turn:
            reader, writer, status, _ = await _sent(port, "/guarded/stream", user, "wide")
            got = b"".join([await reader.readline() for _ in range(2 * pieces)])  # chunked
            if abort:
                writer.transport.abort()
            else:
                writer.close()
            return status == 200 and got != b""

    plans = [(user, chance.randint(0, 5), chance.random() < 0.5) for user in users]
    return sum(await asyncio.gather(*(one(*plan) for plan in plans)))


def watcher(ledger: str) -> Guard:
    """A guard beside the workers', to look with."""
    return Guard(tiers=TIERS, backend=ledger)


def held(guard: Guard, users: list[str], tier: str = "wide") -> float:
    """What open reservations hold of all these users' tokens."""
    return sum(guard.peek(user=user, tier=tier)[0].held for user in users)


def seconds_until_free(guard: Guard, users: list[str], patience: float = 30.0) -> float:
    """How long it takes until no reservation is open; the patience if it takes longer."""
    began = time.monotonic()
    while held(guard, users) and time.monotonic() < began + patience:
        time.sleep(0.02)
    return time.monotonic() - began


def admitted(answers: list[Answer]) -> int:
    """How many passed, having looked that every answer is as it should be.

    Raises:
        AssertionError: one is not.
    """
    for answer in answers:
        assert answer.status in (200, 429), answer
        assert answer.fields["ratelimit"].startswith(f'"{TIERS[0].limits[0]}";r='), answer
        assert f';q={NARROW};qu="tokens";w=' in answer.fields["ratelimit-policy"], answer
        if answer.status == 429:
            assert answer.fields["content-type"] == "application/problem+json", answer
            assert int(answer.fields["retry-after"]) == answer.body["retry_after"] > 0, answer
            assert answer.body["left"] < answer.body["asked"], answer
    return sum(answer.status == 200 for answer in answers)
