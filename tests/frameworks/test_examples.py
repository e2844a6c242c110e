"""Each framework with a guarded client: whose calls, what they are charged, what a refusal does."""

from __future__ import annotations

import time
from typing import Any

import pytest

from quotaguard import Guard, QuotaExceeded
from quotaguard.testing import FakeClock, FakeProvider
from tests.frameworks.kit import EXAMPLES, NAMES, Audit, example

ROOT = EXAMPLES.parents[1]
RAISES = {
    "with_dspy": "LMRateLimitError",
    "with_haystack": "PipelineRuntimeError",
    "with_instructor": "InstructorRetryException",
    "with_langchain_anthropic": "AnthropicRateLimitError",
    "with_langchain_openai": "OpenAIRateLimitError",
    "with_litellm": "RateLimitError",
    "with_pydantic_ai": "ModelHTTPError",
}
"""What frameworks make of a refusal; the others hand it on as it is."""

each_example = pytest.mark.parametrize("name", NAMES)


@each_example
def test_calls_are_charged_to_their_user_as_reported(name: str, provider: FakeProvider) -> None:
    """Every request in the provider's log, no more and no less; alice's, and bob's."""
    audit = Audit()
    example(name)(provider, audit.guard)
    audit.check(provider)
    assert audit.users() == {"alice", "bob"} | ({"carol"} if name == "with_litellm" else set())


@each_example
def test_it_runs_by_hand(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As a script, without a key, and it says what its users have left."""
    example(name, "__main__")
    shown = capsys.readouterr().out
    for user in ("alice", "bob"):
        left = shown.rpartition(f"{user} has ")[2].split()[0]
        assert 9_000 < int(left) < 10_000


@each_example
def test_a_refusal_comes_through(
    name: str, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request is sent, nobody sleeps over it, and what is raised leads to `QuotaExceeded`."""
    guard = Guard(limits=["1 requests/hour"], clock=FakeClock())
    with guard.hold(user="alice"):
        pass
    main = example(name)

    def no_sleep(seconds: float, *_: Any) -> None:
        if seconds > 0.1:
            raise AssertionError(f"it sleeps {seconds} s")

    monkeypatch.setattr(time, "sleep", no_sleep)
    with pytest.raises(Exception) as raised:  # noqa: PT011 -- each framework has its own
        main(provider, guard)
    kinds = {kind.__name__ for kind in raised.type.__mro__}
    assert RAISES.get(name, "OpenAIQuotaExceeded") in kinds
    error: BaseException | None = raised.value
    while error is not None and not isinstance(error, QuotaExceeded):
        error = error.__cause__ or error.__context__
    assert isinstance(error, QuotaExceeded)
    assert error.retry_after == 3_600
    assert provider.requests == []


def test_the_page_leaves_no_example_out() -> None:
    """What is shown to work is told."""
    page = (ROOT / "docs" / "how-to" / "frameworks.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"examples/frameworks/{name}.py" not in page] == []


def test_examples_are_short() -> None:
    """Under sixty lines each."""
    sizes = {path.name: len(path.read_text().splitlines()) for path in EXAMPLES.glob("*.py")}
    assert {name: lines for name, lines in sizes.items() if lines >= 60} == {}
