"""Tiers, users and organisations: one client serves them all, as in a web server."""

from __future__ import annotations

import openai

from quotaguard import Guard, GuardedOpenAI, QuotaExceeded, Tier, acting_as, receipt
from quotaguard.testing import FakeProvider, Reply

GUARD = Guard(
    tiers=[
        Tier("free", limits=["300 tokens/day"], models=["gpt-4o-mini"]),
        Tier("pro", limits=["5k tokens/day", "1k tokens/day per org"]),
    ],
    default_tier="free",
)


def main() -> None:
    """Requests of several people, one after another."""
    with FakeProvider(Reply(input_tokens=50, output_tokens=200)) as provider:
        client = GuardedOpenAI(guard=GUARD, base_url=provider.openai_url, api_key="none needed")

        def handle(user: str, model: str, tier: str | None = None, org: str | None = None) -> None:
            """What a web server does with a request, once it knows whose it is."""
            who = f"{user} of {org}" if org else user
            with acting_as(user, tier=tier, org=org):
                try:
                    answer = client.chat.completions.create(
                        model=model,
                        max_tokens=200,
                        messages=[{"role": "user", "content": "What is a token bucket?"}],
                    )
                except openai.PermissionDeniedError as error:  # ModelNotAllowed
                    print(f"  {who}, {model}: no. {error}.")
                except QuotaExceeded as error:
                    print(
                        f"  {who}, {model}: no. {error.who} has {error.left:.0f} tokens left;",
                        end=" ",
                    )
                    print(f"the limit of {error.limit} binds.")
                else:
                    told = receipt(answer)
                    limits = [f"{left:,.0f} left of {limit}" for limit, left in told.left.items()]
                    print(f"  {who}, {model}: yes. {'; '.join(limits)}.")

        print("Free users have a bucket each, and the small model only:")
        handle("alice", "gpt-4o-mini")
        handle("alice", "gpt-4o-mini")
        handle("bob", "gpt-4o-mini")
        handle("bob", "gpt-4o")
        print("Pro users of an organisation share its bucket as well:")
        for user in ("carol", "dave", "carol", "erin", "dave"):
            handle(user, "gpt-4o", tier="pro", org="acme")
        print("Another organisation has another one:")
        handle("frank", "gpt-4o", tier="pro", org="umbrella")


if __name__ == "__main__":
    main()
