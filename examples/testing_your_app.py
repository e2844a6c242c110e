"""Testing your own quotas: a provider on this machine, and a clock that you move.

The functions named test_ are what you would put into your test-suite; pytest runs them as they are.
"""

from __future__ import annotations

import threading

import openai

from quotaguard import Guard, GuardedOpenAI, Tier
from quotaguard.testing import FakeClock, FakeProvider, Reply, disabled

# -- the app -------------------------------------------------------------------------------------


def make_guard(clock: FakeClock | None = None) -> Guard:
    """The app's limits; a test passes a clock."""
    return Guard(tiers=[Tier("free", limits=["1k tokens/day", "2 requests/minute"])], clock=clock)


def summarise(client: openai.OpenAI, text: str) -> str:
    """What the app does, with a friendly word for those who have to wait."""
    try:
        answer = client.chat.completions.create(
            model="gpt-4o-mini",
            max_tokens=100,
            messages=[{"role": "user", "content": f"Summarise: {text}"}],
        )
    except openai.RateLimitError as error:
        return f"Please come back in {error.response.headers['retry-after']} seconds."
    return answer.choices[0].message.content or ""


# -- its tests -----------------------------------------------------------------------------------


def test_a_user_who_is_too_quick_is_told_when_to_come_back() -> None:
    """Two requests a minute pass; after half a minute one more does."""
    clock = FakeClock()
    with FakeProvider(Reply(text="Short.")) as provider:
        client = GuardedOpenAI(
            guard=make_guard(clock), user="alice", base_url=provider.openai_url, api_key="test"
        )
        assert [summarise(client, "a") for _ in range(2)] == ["Short.", "Short."]
        assert summarise(client, "a") == "Please come back in 30 seconds."
        assert len(provider.requests) == 2
        clock.advance(30)
        assert summarise(client, "a") == "Short."


def test_a_users_quota_holds_whatever_the_provider_says_it_used() -> None:
    """The provider reports more than was reserved: the user is in debt until tomorrow."""
    clock = FakeClock()
    guard = make_guard(clock)
    with FakeProvider() as provider:
        provider.enqueue(
            Reply(text="Short.", usage={"prompt_tokens": 1_500, "completion_tokens": 1})
        )
        client = GuardedOpenAI(
            guard=guard, user="alice", base_url=provider.openai_url, api_key="test"
        )
        assert summarise(client, "a") == "Short."
        assert guard.peek(user="alice")[0].left == -501
        assert summarise(client, "a").startswith("Please come back")
        clock.advance(24 * 60 * 60)
        assert guard.peek(user="alice")[0].left == 1_000


def test_a_crowd_gets_no_more_than_its_quota() -> None:
    """However many threads race, two requests pass."""
    with FakeProvider(Reply(text="Short.")) as provider:
        client = GuardedOpenAI(
            guard=make_guard(FakeClock()),
            user="alice",
            base_url=provider.openai_url,
            api_key="test",
        )
        answers: list[str] = []
        crowd = [
            threading.Thread(target=lambda: answers.append(summarise(client, "a")))
            for _ in range(20)
        ]
        for each in crowd:
            each.start()
        for each in crowd:
            each.join()
        assert answers.count("Short.") == len(provider.requests) == 2


def test_other_parts_of_the_app_can_be_tested_without_quotas() -> None:
    """`disabled` switches every guard off."""
    with FakeProvider(Reply(text="Short.")) as provider:
        client = GuardedOpenAI(
            guard=make_guard(), user="alice", base_url=provider.openai_url, api_key="test"
        )
        with disabled():
            assert {summarise(client, "a") for _ in range(5)} == {"Short."}


def main() -> None:
    """Run the tests above."""
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(f"passed: {name.removeprefix('test_').replace('_', ' ')}")


if __name__ == "__main__":
    main()
