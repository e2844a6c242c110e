"""The app that the tests of the FastAPI integration serve: one endpoint for each way to answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from quotaguard import (
    AsyncGuardedOpenAI,
    Guard,
    GuardedOpenAI,
    Identity,
    Lease,
    acting_as,
)
from quotaguard.contrib.fastapi import RESPONSES, Quotas
from quotaguard.testing import FakeProvider


class Question(BaseModel):
    text: str = "three words here"
    model: str = "gpt-4o-mini"
    most: int = 10


def named(
    x_user: Annotated[str | None, Header()] = None,
    x_org: Annotated[str | None, Header()] = None,
    x_tier: Annotated[str | None, Header()] = None,
) -> Identity | None:
    """Who calls: whoever the headers say."""
    return Identity(x_user, x_org, x_tier) if x_user is not None else None


def most(question: Question) -> int:
    """What the request says of its answer."""
    return question.most


def asked(question: Question) -> Any:
    """The request that a question makes."""
    return {
        "model": question.model,
        "max_tokens": question.most,
        "messages": [{"role": "user", "content": question.text}],
    }


def chat_app(guard: Guard, provider: FakeProvider, caller: Callable[..., Any] = named) -> FastAPI:
    """An app under quotas; ``app.state.seen`` are the leases that its endpoints were given."""
    quotas = Quotas(guard, caller)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await client.close()
        blocking.close()

    app = FastAPI(dependencies=[Depends(quotas.acting)], responses=RESPONSES, lifespan=lifespan)
    quotas.install(app)
    at: dict[str, Any] = {"base_url": provider.openai_url, "api_key": "test", "max_retries": 0}
    client = AsyncGuardedOpenAI(guard=guard, **at)
    blocking = GuardedOpenAI(guard=guard, **at)
    app.state.seen = []
    _whole_answers(app, client, blocking)
    _streams(app, client, blocking)
    _reserved(app, client, quotas)
    return app


def _whole_answers(app: FastAPI, client: AsyncGuardedOpenAI, blocking: GuardedOpenAI) -> None:
    @app.post("/v1/chat")
    async def chat(question: Question) -> dict[str, Any]:
        answer = await client.chat.completions.create(**asked(question))
        return {"answer": answer.choices[0].message.content}

    @app.post("/in-a-thread")
    def in_a_thread(question: Question) -> dict[str, Any]:
        answer = blocking.chat.completions.create(**asked(question))
        return {"answer": answer.choices[0].message.content}

    @app.post("/in-the-background")
    async def in_the_background(question: Question, tasks: BackgroundTasks) -> dict[str, Any]:
        tasks.add_task(lambda: blocking.chat.completions.create(**asked(question)))
        return {}

    @app.post("/for-bob")
    async def for_bob(question: Question) -> dict[str, Any]:
        with acting_as("bob"):
            await client.chat.completions.create(**asked(question))
        return {}


def _streams(app: FastAPI, client: AsyncGuardedOpenAI, blocking: GuardedOpenAI) -> None:
    @app.post("/streamed")
    async def streamed(question: Question) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            stream = await client.chat.completions.create(**asked(question), stream=True)
            async for chunk in stream:
                yield chunk.choices[0].delta.content or ""

        return StreamingResponse(pieces(), media_type="text/plain")

    @app.post("/streamed-from-a-thread")
    def streamed_from_a_thread(question: Question) -> StreamingResponse:
        def pieces() -> Iterator[str]:
            for chunk in blocking.chat.completions.create(**asked(question), stream=True):
                yield chunk.choices[0].delta.content or ""

        return StreamingResponse(pieces(), media_type="text/plain")

    @app.post("/two-in-a-stream")
    async def two_in_a_stream(question: Question) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            for _ in range(2):
                answer = await client.chat.completions.create(**asked(question))
                yield answer.choices[0].message.content or ""

        return StreamingResponse(pieces(), media_type="text/plain")


def _reserved(app: FastAPI, client: AsyncGuardedOpenAI, quotas: Quotas) -> None:
    around = Depends(quotas.reserve(model="gpt-4o", input_tokens=10, output_tokens=most))

    @app.post("/reserved")
    async def reserved(question: Question, lease: Lease = around) -> dict[str, Any]:
        app.state.seen.append(lease)
        if question.text == "tell":
            lease.record(input_tokens=5, output_tokens=6)
        elif question.text == "ask":
            await client.chat.completions.create(**asked(question))
        elif question.text == "not found":
            raise HTTPException(404)
        elif question.text == "fail":
            raise RuntimeError("a bug of the app")
        return {"served": lease.model}

    @app.post("/reserved-stream")
    async def reserved_stream(lease: Lease = around) -> StreamingResponse:
        app.state.seen.append(lease)

        async def pieces() -> AsyncIterator[str]:
            yield "some"
            assert lease.is_open
            lease.record(input_tokens=1, output_tokens=1)
            yield "more"

        return StreamingResponse(pieces())
