"""A web server: ``POST /v1/chat`` with a quota for each user, by FastAPI.

With your own key: ``uvicorn --factory examples.fastapi_app:make_app``. Run as a script it asks
itself, against a provider on this machine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel

from quotaguard import AsyncGuardedOpenAI, Fallback, Guard, Identity, Tier
from quotaguard.contrib.fastapi import RESPONSES, Quotas
from quotaguard.testing import FakeClock, FakeProvider, Reply

FREE = Tier("free", limits=["500 tokens/day"], models=["gpt-4o-mini"])
PRO = Tier(
    "pro",
    limits=["500 tokens/day for gpt-4o", "50k tokens/day"],
    when_exceeded=Fallback("gpt-4o-mini"),
)
KEYS = {"key-of-alice": Identity("alice", tier="free"), "key-of-bob": Identity("bob", tier="pro")}


class Question(BaseModel):
    """What a user sends."""

    text: str
    model: str = "gpt-4o-mini"


def caller(x_api_key: Annotated[str, Header()]) -> Identity:
    """Who calls, by the key that they send; a session or a token's claims would do as well."""
    if x_api_key not in KEYS:
        raise HTTPException(401, "unknown key")
    return KEYS[x_api_key]


def make_app(guard: Guard | None = None, **openai: Any) -> FastAPI:
    """The app; its state is shared by all workers if the guard has a backend that they share."""
    guard = guard or Guard(tiers=[FREE, PRO])
    client = AsyncGuardedOpenAI(guard=guard, **openai)
    quotas = Quotas(guard, caller)
    app = FastAPI(dependencies=[Depends(quotas.acting)], responses=RESPONSES)
    quotas.install(app)

    def request(question: Question) -> dict[str, Any]:
        messages = [{"role": "user", "content": question.text}]
        return {"model": question.model, "max_tokens": 200, "messages": messages}

    @app.post("/v1/chat")
    async def chat(question: Question) -> dict[str, str | None]:
        answer = await client.chat.completions.create(**request(question))
        return {"answer": answer.choices[0].message.content}

    @app.post("/v1/chat/stream")
    async def stream(question: Question) -> StreamingResponse:
        async def pieces() -> AsyncIterator[str]:
            chunks = await client.chat.completions.create(**request(question), stream=True)
            async for chunk in chunks:
                yield chunk.choices[0].delta.content or ""

        return StreamingResponse(pieces(), media_type="text/plain")

    return app


def main() -> None:
    """Ask for alice, who is on the free tier, and for bob, who pays."""
    with FakeProvider(
        Reply(text="It holds tokens.", input_tokens=30, output_tokens=170)
    ) as provider:
        app = make_app(
            Guard(tiers=[FREE, PRO], clock=FakeClock()),
            base_url=provider.openai_url,
            api_key="none needed",
        )
        with TestClient(app) as web:

            def ask(user: str, path: str = "/v1/chat", model: str = "gpt-4o-mini") -> None:
                answer = web.post(
                    path,
                    json={"text": "What is a token bucket?", "model": model},
                    headers={"x-api-key": f"key-of-{user}"},
                )
                print(
                    f"{user} asks {path} for {model}: {answer.status_code} {answer.reason_phrase}"
                )
                for name in ("RateLimit", "Retry-After", "Quota-Served-Model"):
                    if name in answer.headers:
                        print(f"    {name}: {answer.headers[name]}")
                if answer.status_code != 200:
                    print(f"    {answer.json()['detail']}")

            ask("alice")
            ask("alice", "/v1/chat/stream")
            ask("alice")
            ask("alice", model="gpt-4o")
            for _ in range(3):
                ask("bob", model="gpt-4o")
            ask("mallory")


if __name__ == "__main__":
    main()
