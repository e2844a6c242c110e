"""What the magics show, as HTML and as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...core.ops import BucketState
from ...display import levels, page, reports
from ...display.receipts import instead
from ...errors import QuotaExceeded
from ...identity import Identity
from ...report import Report, report
from ...wording import shown
from .meter import Meter


class Standing(NamedTuple):
    """The buckets of one caller, or why they could not be read."""

    identity: Identity
    buckets: tuple[BucketState, ...] = ()
    why: str = ""

    @property
    def title(self) -> str:
        """Whose they are."""
        user, org, _ = self.identity
        if user is None:
            return "Shared quotas"
        return f"Quotas of {shown(user)}" + (f" of {shown(org)}" if org else "")

    @property
    def note(self) -> str:
        """What is to be said of them."""
        return self.why or ("" if self.buckets else "no limits: calls are metered only")


class View:
    """Something to display."""

    def _repr_html_(self) -> str:
        return self.html()

    def __repr__(self) -> str:  # what a terminal shows
        return self.text()

    def html(self) -> page.Html:
        """As a card."""
        raise NotImplementedError

    def text(self) -> str:
        """As lines."""
        raise NotImplementedError


class CellView(View):
    """What a cell cost, and what is left."""

    def __init__(self, meter: Meter, standings: Sequence[Standing]) -> None:
        self._sums = report(meter.entries, by="model")
        self._standings = standings
        self._notes = list(_notes(meter))

    def html(self) -> page.Html:
        """As a card."""
        head, lines, last = self._sums.table()
        several = len(lines) > 1
        return page.card(
            _title(self._standings),
            page.tiles(reports.facts(self._sums.total)),
            *(page.note(sentence, kind) for sentence, kind in self._notes),
            *(_standing(each, several=len(self._standings) > 1) for each in self._standings),
            page.table(head, lines, last) if several else page.join(()),
        )

    def text(self) -> str:
        """As lines."""
        facts = ", ".join(f"{number} {what}" for number, what in reports.facts(self._sums.total))
        notes = [sentence for sentence, _ in self._notes]
        return "\n".join(
            [f"{_title(self._standings)}: {facts}", *notes, *map(_lines, self._standings)]
        )


class LevelsView(View):
    """The levels of a caller, and what was used today."""

    def __init__(self, standing: Standing, where: str, today: Report | None) -> None:
        self._standing = standing
        self._where = where
        self._today = today

    def html(self) -> page.Html:
        """As a card."""
        used = page.join(())
        if self._today is not None and self._today.rows:
            facts = reports.facts(self._today.total)
            used = page.join(
                (page.note(_TODAY, "foot"), page.tiles(facts), reports.usage_chart(self._today))
            )
        return page.card(
            self._standing.title,
            page.note(self._standing.note),
            levels.as_html(levels.of(self._standing.buckets)),
            used,
            page.note(self._where, "foot"),
        )

    def text(self) -> str:
        """As lines."""
        lines = [_lines(self._standing)]
        if self._today is not None and self._today.rows:
            facts = reports.facts(self._today.total)
            said = ", ".join(f"{number} {what}" for number, what in facts)
            lines.append(f"{_TODAY}: {said}")
        return "\n".join([*lines, self._where])


_TODAY = "Today (UTC), all users in this journal"


def _title(standings: Sequence[Standing]) -> str:
    users = {each.identity.user for each in standings}
    only = users.pop() if len(users) == 1 else None
    return "This cell" if only is None else f"This cell, for {shown(only)}"


def _standing(standing: Standing, *, several: bool) -> page.Html:
    title = standing.title if several or standing.identity.user is None else ""
    return page.join(
        (
            page.note(standing.note or title),
            levels.as_html(levels.of(standing.buckets)),
        )
    )


def _lines(standing: Standing) -> str:
    said = standing.note or levels.as_text(levels.of(standing.buckets))
    return f"{standing.title}:\n{said}"


def _notes(meter: Meter) -> list[tuple[str, str]]:
    """What the sums do not say."""
    notes = []
    if meter.refusal is not None:
        kind = "refused" if isinstance(meter.refusal, QuotaExceeded) else "not allowed"
        notes.append((f"{kind}: {meter.refusal}", "bad"))
    others = {
        f"{shown(each.served)} {instead(each.requested, each.because)}"
        for each in meter.entries
        if each.because is not None
    }
    notes += [(sentence, "warn") for sentence in sorted(others)]
    if meter.under_way:
        notes.append((f"{_calls(len(meter.under_way))} still under way, not in the sums", "note"))
    elsewhere = sum(each.id not in meter.own for each in meter.entries)
    if elsewhere:
        notes.append(
            (f"{_calls(elsewhere)} through other guards, which have their own limits", "note")
        )
    return notes


def _calls(count: int) -> str:
    return f"{count:,} call" if count == 1 else f"{count:,} calls"
