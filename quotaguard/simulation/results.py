"""What a simulation found: each call as it was, and as it would have been."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from ..entries import Entry
from ..report import Row, report
from ..wording import aligned, money, shown


class Comparison(NamedTuple):
    """Sums over some calls, as they were and as they would have been."""

    did: Row
    would: Row

    @property
    def difference(self) -> Decimal:
        """What they would have cost more than they did, in US dollars; negative: less."""
        return self.would.cost - self.did.cost


@dataclass(frozen=True, slots=True)
class Simulation:
    """Recorded calls under another policy; ``str(simulation)`` is a table of users.

    Attributes:
        did: the calls as they were.
        would: the same calls, in the same order, as they would have been.
        left_out: entries of the log that are no calls (grants, resets, blocks around calls).
    """

    did: tuple[Entry, ...]
    would: tuple[Entry, ...]
    left_out: int = 0

    @property
    def turned_away(self) -> int:
        """Calls that were served and would have been refused."""
        return self._changed("served", "refused")

    @property
    def let_in(self) -> int:
        """Calls that were refused and would have been served: with what they were estimated to
        use, since nobody knows more.
        """
        return self._changed("refused", "served")

    def _changed(self, did: str, would: str) -> int:
        pairs = zip(self.did, self.would, strict=True)
        return sum(a.outcome == did and b.outcome == would for a, b in pairs)

    @property
    def limits(self) -> dict[str, dict[str, int]]:
        """What each limit would have done: its text -> calls ``refused`` and ``downgraded``."""
        refused = Counter(e.limit for e in self.would if e.outcome == "refused" and e.limit)
        downgraded = Counter(e.because for e in self.would if e.because)
        texts = sorted(refused | downgraded, key=lambda text: (-refused[text], text))
        return {text: {"refused": refused[text], "downgraded": downgraded[text]} for text in texts}

    def compare(
        self, by: str | Sequence[str] = "user", *, tz: str = "UTC"
    ) -> dict[tuple[str | None, ...], Comparison]:
        """Sums by group, as `quotaguard.Guard.report` has them: those first whom the policy hits
        hardest.

        Raises:
            ConfigurationError: an argument is wrong.
        """
        did, would = report(self.did, by, tz=tz).rows, report(self.would, by, tz=tz).rows
        both = {key: Comparison(did.get(key, Row()), would.get(key, Row())) for key in did | would}
        return dict(sorted(both.items(), key=_hardest))

    @property
    def total(self) -> Comparison:
        """Sums over all calls."""
        return Comparison(report(self.did, ()).total, report(self.would, ()).total)

    def as_dict(self, by: str | Sequence[str] = "user", *, tz: str = "UTC") -> dict[str, Any]:
        """The result as JSON values."""
        groups = (by,) if isinstance(by, str) else tuple(by)
        return {
            "calls": len(self.did),
            "left_out": self.left_out,
            "turned_away": self.turned_away,
            "let_in": self.let_in,
            "by": list(groups),
            "limits": [{"limit": text, **does} for text, does in self.limits.items()],
            "rows": [
                dict(zip(groups, key, strict=True)) | _both(found)
                for key, found in self.compare(groups, tz=tz).items()
            ],
            "total": _both(self.total),
        }

    def table(
        self, by: str | Sequence[str] = "user", *, tz: str = "UTC"
    ) -> tuple[list[str], list[list[str]], list[str]]:
        """The result for people: the head, a line for each group, and the total."""
        groups = (by,) if isinstance(by, str) else tuple(by)
        total = self.total
        columns = [c for c in _COLUMNS if c[2] or c[1](total) != "0"]
        lines = [
            [*map(shown, key), *(show(found) for _, show, _ in columns)]
            for key, found in self.compare(groups, tz=tz).items()
        ]
        ends = ["total", *([""] * (len(groups) - 1))] if groups else []
        head = [*groups, *(name for name, _, _ in columns)]
        return head, lines if groups else [], [*ends, *(show(total) for _, show, _ in columns)]

    def summary(self) -> str:
        """What the policy would have done, in sentences."""
        total = self.total
        would = total.would
        sentences = [
            f"{len(self.did):,} calls, of which would have been",
            f"  refused     {would.refused:,}, {self.turned_away:,} of them had been served",
            f"  downgraded  {would.downgraded:,}",
            f"  delayed     {would.waited:,}, {would.waited_seconds:,.1f} s in all",
            f"They cost {money(total.did.cost)} and would have cost {money(total.would.cost)}.",
        ]
        if self.let_in:
            sentences.append(f"{self.let_in:,} that were refused would have been served.")
        unpriced = total.did.unpriced or total.would.unpriced
        if unpriced:
            sentences.append(f"{unpriced:,} calls have no known price and are not in these sums.")
        for text, does in self.limits.items():
            sentences.append(
                f"{text}: {does['refused']:,} refused, {does['downgraded']:,} downgraded."
            )
        return "\n".join(sentences)

    def __str__(self) -> str:
        head, lines, last = self.table()
        return f"{aligned([head, *lines, last], 1)}\n{self.summary()}"


_COLUMNS: tuple[tuple[str, Callable[[Comparison], str], bool], ...] = (
    ("calls", lambda both: f"{both.did.calls + both.did.refused:,}", True),
    ("were refused", lambda both: f"{both.did.refused:,}", False),
    ("refused", lambda both: f"{both.would.refused:,}", True),
    ("downgraded", lambda both: f"{both.would.downgraded:,}", True),
    ("delayed", lambda both: f"{both.would.waited:,}", True),
    ("seconds", lambda both: _seconds(both.would.waited_seconds), False),
    ("longest", lambda both: _seconds(both.would.longest_wait), False),
    ("did cost", lambda both: money(both.did.cost), True),
    ("would cost", lambda both: money(both.would.cost), True),
    ("difference", lambda both: money(both.difference), True),
)
"""Name, how it is shown, and whether it is shown where it is all zero."""


def _seconds(value: float) -> str:
    return f"{value:,.1f}" if value else "0"


def _both(found: Comparison) -> dict[str, Any]:
    return {
        "did": found.did.as_dict(),
        "would": found.would.as_dict(),
        "difference": f"{found.difference:f}",
    }


def _hardest(item: tuple[tuple[str | None, ...], Comparison]) -> tuple[Any, ...]:
    key, (did, would) = item
    names = tuple((part is not None, part or "") for part in key)
    return -would.refused, -would.downgraded, -would.waited_seconds, -did.nano_usd, *names
