"""DSPy: through LiteLLM, which builds its clients itself, so `patch` guards them."""

from __future__ import annotations

import os

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # its prices without a download

import dspy

from quotaguard import Guard, acting_as, patch
from quotaguard.testing import FakeProvider


def main(provider: FakeProvider, guard: Guard) -> None:
    """Alice asks, then bob."""
    model = dspy.LM(
        "openai/gpt-4o-mini",
        engine="litellm",  # DSPy's own engine speaks HTTP past the SDK: it cannot be guarded
        api_base=provider.openai_url,
        api_key="none needed",
        cache=False,
        num_retries=0,  # it would try again, and again be refused
    )
    with patch(guard=guard, user="alice"):
        print(f"alice: {model('What is a token bucket?')[0]}")
        with acting_as("bob"):
            print(f"bob: {model('What is a lease?')[0]}")


if __name__ == "__main__":
    with FakeProvider() as provider:
        guard = Guard(limits=["10k tokens/day"])
        main(provider, guard)
        print(
            *(f"{user} has {guard.peek(user=user)[0].left:.0f} left" for user in ("alice", "bob"))
        )
