"""A guard that tells whose calls were charged what, to be compared with the provider's own log."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from quotaguard import Guard
from quotaguard.events import Event, Settled
from quotaguard.testing import FakeClock, FakeProvider

EXAMPLES = Path(__file__).parents[2] / "examples" / "frameworks"
NAMES = sorted(path.stem for path in EXAMPLES.glob("with_*.py"))
CAPACITY = 1_000_000
METRICS = ("input_tokens", "output_tokens", "requests")


class Charge(NamedTuple):
    """What one call used."""

    input: int
    output: int


class Audit:
    """A guard with room for everything, and what it charged to whom, call by call."""

    def __init__(self) -> None:
        self.charges: list[tuple[str | None, Charge]] = []
        limits = [f"{CAPACITY} {metric}/day" for metric in METRICS]
        self.guard = Guard(limits=limits, clock=FakeClock(), hooks=[self._hear])

    def _hear(self, event: Event) -> None:
        if isinstance(event, Settled):
            assert event.used is not None, "charged as reserved"
            used = Charge(event.used.input_tokens, event.used.output_tokens)
            self.charges.append((event.identity.user, used))

    def users(self) -> set[str]:
        """Whose calls there were."""
        return {str(user) for user, _ in self.charges}

    def check(self, provider: FakeProvider) -> None:
        """Each request of the provider's log is charged once, as reported, to one of the users,
        whose buckets lost just that.
        """
        assert [charge for _, charge in self.charges] == [
            told(seen.usage) for seen in provider.requests
        ]
        assert self.guard.backend.open_reservations == 0
        for user in self.users():
            own = [charge for who, charge in self.charges if who == user]
            left = {state.limit.metric: state.left for state in self.guard.peek(user=user)}
            assert [CAPACITY - left[metric] for metric in METRICS] == [
                sum(charge.input for charge in own),
                sum(charge.output for charge in own),
                len(own),
            ]


def told(usage: dict[str, Any]) -> Charge:
    """What the provider said that a call used, in any of its shapes."""
    return Charge(
        usage["prompt_tokens"] if "prompt_tokens" in usage else usage["input_tokens"],
        usage.get("completion_tokens", usage.get("output_tokens", 0)),  # embeddings have none
    )


def example(name: str, run_name: str = "example") -> Callable[[FakeProvider, Guard], None]:
    """The ``main`` of an example, which takes a provider and a guard."""
    main: Callable[[FakeProvider, Guard], None] = runpy.run_path(
        str(EXAMPLES / f"{name}.py"), run_name=run_name
    )["main"]
    return main
