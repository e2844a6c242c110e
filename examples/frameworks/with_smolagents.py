"""smolagents: a model makes its client in ``create_client``."""

from __future__ import annotations

from smolagents import OpenAIModel

from quotaguard import Guard, GuardedOpenAI, acting_as
from quotaguard.testing import FakeProvider


class GuardedModel(OpenAIModel):
    """An OpenAIModel whose client is guarded."""

    def __init__(self, *args: object, guard: Guard, user: str, **kwargs: object) -> None:
        self.quota = {"guard": guard, "user": user}
        super().__init__(*args, **kwargs)

    def create_client(self) -> GuardedOpenAI:
        """The client that OpenAIModel would make, guarded."""
        return GuardedOpenAI(**self.client_kwargs, **self.quota)


def main(provider: FakeProvider, guard: Guard) -> None:
    """Alice asks, and bob has an answer streamed."""
    model = GuardedModel(
        "gpt-4o-mini",
        api_base=provider.openai_url,
        api_key="none needed",
        guard=guard,
        user="alice",
    )
    question = [{"role": "user", "content": [{"type": "text", "text": "What is a token bucket?"}]}]
    print(f"alice: {model.generate(question).content}")
    with acting_as("bob"):
        pieces = model.generate_stream(question)
        print(f"bob: {''.join(piece.content or '' for piece in pieces)}")


if __name__ == "__main__":
    with FakeProvider() as provider:
        guard = Guard(limits=["10k tokens/day"])
        main(provider, guard)
        print(
            *(f"{user} has {guard.peek(user=user)[0].left:.0f} left" for user in ("alice", "bob"))
        )
