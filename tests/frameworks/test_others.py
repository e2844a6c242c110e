"""What the page says beside the examples: other classes of the frameworks, and what goes past."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quotaguard import Guard, GuardedAzureOpenAI, GuardedOpenAI, patch
from quotaguard.testing import FakeProvider
from tests.frameworks.kit import Audit

ASK = [{"role": "user", "content": "What is a token bucket?"}]
KEY = "none needed"


def azure_settings(provider: FakeProvider) -> dict[str, Any]:
    """What Azure's clients need."""
    return {"azure_endpoint": provider.url, "api_key": KEY, "api_version": "2024-10-21"}


def langchain_azure(provider: FakeProvider, guard: Guard) -> None:
    """LangChain leaves the deployment to the client."""
    from langchain_openai import AzureChatOpenAI

    settings = azure_settings(provider) | {"azure_deployment": "gpt-4o-mini"}
    client = GuardedAzureOpenAI(guard=guard, user="alice", **settings)
    model: Any = AzureChatOpenAI(client=client.chat.completions, root_client=client, **settings)
    model.invoke("What is a token bucket?")


def langchain_embeddings(provider: FakeProvider, guard: Guard) -> None:
    """OpenAIEmbeddings takes the resource."""
    from langchain_openai import OpenAIEmbeddings

    client = GuardedOpenAI(guard=guard, user="alice", base_url=provider.openai_url, api_key=KEY)
    model: Any = OpenAIEmbeddings(
        client=client.embeddings, api_key=KEY, check_embedding_ctx_length=False
    )
    model.embed_query("What is a token bucket?")


def litellm_azure(provider: FakeProvider, guard: Guard) -> None:
    """LiteLLM takes Azure's client too."""
    import litellm

    settings = azure_settings(provider)
    client = GuardedAzureOpenAI(guard=guard, user="alice", **settings)
    litellm.completion("azure/gpt-4o-mini", ASK, client=client)


def litellm_patched_embedding(provider: FakeProvider, guard: Guard) -> None:
    """Its embeddings go through the SDK."""
    import litellm

    with patch(guard=guard, user="alice"):
        litellm.embedding(
            "openai/text-embedding-3-small", ["words"], api_base=provider.openai_url, api_key=KEY
        )


def smolagents_patched(provider: FakeProvider, guard: Guard) -> None:
    """Without a class of one's own."""
    from smolagents import OpenAIModel

    with patch(guard=guard, user="alice"):
        model: Any = OpenAIModel("gpt-4o-mini", api_base=provider.openai_url, api_key=KEY)
        model.generate([{"role": "user", "content": [{"type": "text", "text": "words"}]}])


def pydantic_ai_patched(provider: FakeProvider, guard: Guard) -> None:
    """With the provider's own client."""
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    with patch(guard=guard, user="alice"):
        own = OpenAIProvider(base_url=provider.openai_url, api_key=KEY)
        Agent(OpenAIChatModel("gpt-4o-mini", provider=own)).run_sync("What is a token bucket?")


Run = Callable[[FakeProvider, Guard], None]
REACHED = [
    langchain_azure,
    langchain_embeddings,
    litellm_azure,
    litellm_patched_embedding,
    smolagents_patched,
    pydantic_ai_patched,
]


@pytest.mark.parametrize("run", REACHED, ids=lambda it: it.__name__)
def test_it_is_charged_as_reported(run: Run, provider: FakeProvider) -> None:
    """As in the examples: every request of the provider's log, to its user."""
    audit = Audit()
    run(provider, audit.guard)
    audit.check(provider)
    assert [user for user, _ in audit.charges] == ["alice"]


def litellm_anthropic(provider: FakeProvider) -> None:
    """LiteLLM speaks Anthropic's protocol itself."""
    import litellm

    litellm.completion("anthropic/claude-opus-5", ASK, api_base=provider.anthropic_url, api_key=KEY)


def litellm_responses(provider: FakeProvider) -> None:
    """And that of the Responses API."""
    import litellm

    litellm.responses(
        "What is a bucket?", "openai/gpt-4o-mini", api_base=provider.openai_url, api_key=KEY
    )


def dspy_engine(provider: FakeProvider) -> None:
    """DSPy's own engine needs no SDK."""
    import dspy

    dspy.LM("openai/gpt-4o-mini", api_base=provider.openai_url, api_key=KEY, cache=False)("words")


@pytest.mark.parametrize(
    "run", [litellm_anthropic, litellm_responses, dspy_engine], ids=lambda it: it.__name__
)
def test_it_goes_past_as_the_page_says(
    run: Callable[[FakeProvider], None], provider: FakeProvider
) -> None:
    """When one of them begins to use an SDK, the page has good news to tell."""
    audit = Audit()
    with patch(guard=audit.guard, user="alice"):
        run(provider)
    assert len(provider.requests) == 1
    assert audit.charges == []
