"""What the provider saw and served, kept so that any thread may ask at any time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

_SECRET = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "x-amz-security-token",
        "cookie",
    }
)


@dataclass(frozen=True)
class Seen:
    """One HTTP request, and what became of it."""

    method: str
    path: str
    """Without its query, as it was sent."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """By lower-case name; the values of those that carry credentials are `[redacted]`."""
    body: Any
    """The parsed JSON; `None` when there was none."""
    model: str | None
    """The model asked for, in the body or in the path."""
    status: int | None = None
    """`None` as long as no byte of the head was sent."""
    usage: Any = None
    """The usage the client was told, as it was told; `None` when it was told none."""
    disconnected: bool = False
    """Whether the client was found gone before it had the whole answer."""


@dataclass(frozen=True)
class Served:
    """Sums of the usage really reported to clients; a figure that is no whole number adds nothing.

    An answer that reported no usage is not among the `requests`, and a response that is retrieved
    again is counted once. `input_tokens` includes what was read from or written to a cache, for
    every API.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    by_model: Mapping[str, Served] = field(default_factory=dict)

    def __add__(self, other: Served) -> Served:
        models = {*self.by_model, *other.by_model}
        return Served(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            {
                name: self.by_model.get(name, Served()) + other.by_model.get(name, Served())
                for name in models
            },
        )


class Bill:
    """What one answer has cost so far: its usage may be told in parts, and more than once."""

    __slots__ = ("epoch", "figures", "model", "usage")

    def __init__(self, model: str) -> None:
        self.model = model
        self.usage: Any = None
        self.figures: tuple[int, ...] = (0, 0, 0)
        self.epoch: int | None = None


class Record:
    """The requests, in the order they came, and the sums of what was served."""

    def __init__(self, remember: int | None) -> None:
        self._remember = remember
        self._changed = threading.Condition()
        self._seen: dict[int, Seen] = {}
        self._sums: dict[str, list[int]] = {}
        self._serial = 0
        self._epoch = 0

    def open(self, seen: Seen) -> int:
        """Notes a request, and gives the number it goes by."""
        with self._changed:
            self._serial += 1
            self._seen[self._serial] = seen
            if self._remember is not None and len(self._seen) > self._remember:
                del self._seen[next(iter(self._seen))]
            self._changed.notify_all()
            return self._serial

    def note(self, serial: int, **changes: Any) -> None:
        """Notes what became of a request, unless it was forgotten meanwhile."""
        with self._changed:
            if serial in self._seen:
                self._seen[serial] = replace(self._seen[serial], **changes)
                self._changed.notify_all()

    def report(self, serial: int, usage: Any, bill: Bill) -> None:
        """Notes the usage about to be told to the client; a figure told again replaces it."""
        if isinstance(bill.usage, dict) and isinstance(usage, dict):
            usage = {**bill.usage, **usage}
        bill.usage = usage
        figures: tuple[int, ...] = (1, *_figures(usage))
        with self._changed:
            if serial in self._seen:
                self._seen[serial] = replace(self._seen[serial], usage=usage)
            if bill.epoch is None:
                bill.epoch = self._epoch
            if bill.epoch == self._epoch:
                sums = self._sums.setdefault(bill.model, [0, 0, 0])
                for place, (new, old) in enumerate(zip(figures, bill.figures, strict=True)):
                    sums[place] += new - old
                bill.figures = figures

    @property
    def requests(self) -> list[Seen]:
        """The requests as they stand."""
        with self._changed:
            return list(self._seen.values())

    def wait_until(self, condition: Callable[[list[Seen]], bool], timeout: float) -> list[Seen]:
        """Blocks until the requests meet a condition; returns them as they then stand.

        Raises:
            TimeoutError: they did not within `timeout` seconds.
        """
        with self._changed:
            if self._changed.wait_for(lambda: condition([*self._seen.values()]), timeout):
                return list(self._seen.values())
            count = len(self._seen)
        raise TimeoutError(f"{count} requests did not meet the condition within {timeout} s")

    @property
    def served(self) -> Served:
        """The sums as they stand."""
        with self._changed:
            sums = {model: tuple(figures) for model, figures in self._sums.items()}
        total = Served()
        for model, (requests, input_tokens, output_tokens) in sums.items():
            own = Served(requests, input_tokens, output_tokens)
            total += replace(own, by_model={model: own})
        return total

    def clear(self) -> None:
        """Forgets all requests and sums, those of requests still being answered included."""
        with self._changed:
            self._seen.clear()
            self._sums.clear()
            self._epoch += 1


def redact(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers without the values that let somebody in."""
    return {name: "[redacted]" if name in _SECRET else value for name, value in headers.items()}


def _figures(usage: Any) -> tuple[int, int]:
    """The input and output tokens that a usage of any API speaks of."""

    def figure(*names: str) -> int:
        for name in names:
            value = usage.get(name)
            if type(value) is int:
                return value
        return 0

    if not isinstance(usage, dict):
        return 0, 0
    return (
        figure("prompt_tokens", "input_tokens")
        + figure("cache_read_input_tokens")
        + figure("cache_creation_input_tokens"),
        figure("completion_tokens", "output_tokens"),
    )
