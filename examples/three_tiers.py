"""Three plans: Free, Pro, and Enterprise with terms of each organisation's own.

Free has 10k tokens a day and the small model. Pro has 500k tokens a day of the expert model, and
the small one when they are used up. Enterprise begins where Pro ends, and an organisation may have
agreed on something else: `tier_of` looks that up, in a database say.
"""

from __future__ import annotations

import openai

from quotaguard import (
    Fallback,
    Guard,
    GuardedOpenAI,
    Identity,
    QuotaExceeded,
    Tier,
    acting_as,
    receipt,
)
from quotaguard.testing import FakeClock, FakeProvider, Reply

EXPERT, SMALL = "gpt-4o", "gpt-4o-mini"
ANSWER = 16_000
"""Tokens of each answer below: a long one."""

FREE = Tier("free", ["10k tokens/day"], models=[SMALL])
PRO = Tier(
    "pro",
    [f"500k tokens/day for {EXPERT}", f"5M tokens/day for {SMALL}"],
    models=[EXPERT, SMALL],
    when_exceeded=Fallback(SMALL),
)
ENTERPRISE = Tier("enterprise", ["1M tokens/day", "20M tokens/day per org"])

PLANS = {"alice": "free", "carol": "pro", "erin": "enterprise", "frank": "enterprise"}
AGREED = {"umbrella": ["30k tokens/day per org"]}
"""Limits that organisations have instead of the tier's."""


def tier_of(who: Identity) -> Tier | str | None:
    """Whose plan is which; None would be the default tier."""
    agreed = AGREED.get(who.org or "")
    return ENTERPRISE.overridden(agreed) if agreed else PLANS.get(who.user or "")


def main() -> None:
    """A day of all three, and the next morning."""
    clock = FakeClock()
    guard = Guard(tiers=[FREE, PRO, ENTERPRISE], default_tier="free", tier_of=tier_of, clock=clock)
    with FakeProvider(Reply(input_tokens=20, output_tokens=ANSWER)) as provider:
        client = GuardedOpenAI(guard=guard, base_url=provider.openai_url, api_key="none needed")

        def ask(user: str, model: str, most: int = ANSWER, org: str | None = None) -> str:
            """What became of a call."""
            with acting_as(user, org=org):
                try:
                    answer = client.chat.completions.create(
                        model=model,
                        max_tokens=most,
                        messages=[{"role": "user", "content": "Explain token buckets at length."}],
                    )
                except openai.PermissionDeniedError as error:  # ModelNotAllowed
                    return f"no: {error}"
                except QuotaExceeded as error:
                    return f"no: the limit of {error.limit}"
            told = receipt(answer)
            return f"{told.served_model}{f' because of {told.because}' if told.because else ''}"

        print(f"Free: alice asks for {EXPERT}:", ask("alice", EXPERT))
        for _ in range(3):
            print(f"  and for {SMALL}, 4,000 tokens:", ask("alice", SMALL, 4_000))

        print(f"Pro: carol asks for {EXPERT}, {ANSWER:,} tokens each time.")
        before, calls = "", 0
        while calls < 33:
            calls += 1
            now = ask("carol", EXPERT)
            if now != before:
                print(f"  call {calls}: {now}")
            before = now

        print("Enterprise: the tier's own terms, and those that umbrella agreed on.")
        print("  erin of acme:", *(ask("erin", EXPERT, org="acme") for _ in range(3)), sep=" / ")
        print(
            "  frank of umbrella:", *(ask("frank", EXPERT, org="umbrella") for _ in "ab"), sep=" / "
        )
        AGREED["umbrella"] = ["10M tokens/day per org"]
        clock.advance(60)  # as long as an answer of tier_of holds
        print("  after they agreed on more:", ask("frank", EXPERT, org="umbrella"))

        clock.advance(24 * 3600)
        print("The next day:", ask("alice", SMALL, 4_000), "/", ask("carol", EXPERT))


if __name__ == "__main__":
    main()
