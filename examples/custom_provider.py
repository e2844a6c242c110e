"""Any other provider: `Guard.hold` reserves around a block, whatever the block calls."""

from __future__ import annotations

import json
import urllib.request

from quotaguard import Fallback, Guard, QuotaExceeded, Tier
from quotaguard.testing import FakeClock, FakeProvider, Reply


class HouseLLM:
    """A client of one's own, for a provider that no SDK knows."""

    def __init__(self, url: str) -> None:
        self._url = url

    def ask(self, model: str, text: str, most: int) -> dict[str, int]:
        """One HTTP request; its answer says what it used."""
        body = {"model": model, "prompt": text, "max_tokens": most}
        request = urllib.request.Request(
            f"{self._url}/completions",
            data=json.dumps(body).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            usage: dict[str, int] = json.load(answer)["usage"]
        return usage


def main() -> None:
    """Ask four times: the large model, the small one, and then nothing has room."""
    guard = Guard(
        tiers=[
            Tier(
                "house",
                limits=["250 tokens/minute for house-large", "150 tokens/minute for house-small"],
                when_exceeded=[Fallback("house-small")],
            )
        ],
        clock=FakeClock(),
    )
    with FakeProvider(Reply(input_tokens=20, output_tokens=80)) as provider:
        llm = HouseLLM(provider.openai_url)
        for _ in range(4):
            try:
                with guard.hold(
                    user="alice", model="house-large", input_tokens=20, output_tokens=100
                ) as lease:
                    model = lease.model or ""  # with a fallback, the one to use instead
                    usage = llm.ask(model, "What is a token bucket?", most=100)
                    lease.record(
                        input_tokens=usage["prompt_tokens"],
                        output_tokens=usage["completion_tokens"],
                    )
            except QuotaExceeded as error:
                print(f"Refused, nothing was sent: {error}.")
            else:
                used = usage["total_tokens"]
                print(f"{model} answered; reserved {lease.reserved.tokens} tokens, used {used}.")


if __name__ == "__main__":
    main()
