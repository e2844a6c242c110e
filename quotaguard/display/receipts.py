"""A receipt, shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..limits import Limit
from ..wording import money, seconds, shown
from . import levels, page

if TYPE_CHECKING:
    from ..receipts import Receipt


def as_html(receipt: Receipt) -> page.Html:
    """The receipt as a card."""
    return page.card(
        _title(receipt),
        *(page.note(line, kind) for line, kind in _notes(receipt)),
        page.tiles(_facts(receipt)),
        levels.as_html(_levels(receipt)),
    )


def as_text(receipt: Receipt) -> str:
    """The receipt as lines."""
    facts = ", ".join(f"{what} {number}" for number, what in _facts(receipt))
    notes = [line for line, _ in _notes(receipt)]
    return "\n".join([_title(receipt), *notes, facts, levels.as_text(_levels(receipt))]).rstrip()


def instead(requested: str | None, because: str | None) -> str:
    """That, and why, another model served a call."""
    sentence = f"instead of {shown(requested)}"
    if because is None:
        return sentence
    try:
        return f"{sentence}: no room in {Limit.parse(because).text}"
    except ConfigurationError:  # not a limit: the tier does not include the model
        return f"{sentence}: {because}"


def _title(receipt: Receipt) -> str:
    user, org, tier = receipt.identity
    whose = " of ".join(shown(each) for each in (user, org) if each is not None)
    parts = [f"Receipt of {whose}" if whose else "Receipt", shown(receipt.served_model)]
    return ", ".join(
        part for part in (*parts, f"tier {shown(tier)}" if tier else "") if part != "-"
    )


def _notes(receipt: Receipt) -> Iterator[tuple[str, str]]:
    if receipt.served_model != receipt.requested_model:
        yield instead(receipt.requested_model, receipt.because), "warn"
    if receipt.observed is not None:
        yield f"would have been {receipt.observed}: the guard only observes", "warn"
    if not receipt.settled:
        yield "still running: what is reserved is charged until it ends", "note"
    elif receipt.used is None:
        yield "charged as reserved: nobody can tell what it used", "warn"


def _facts(receipt: Receipt) -> Iterator[tuple[str, str]]:
    usage = receipt.used or receipt.reserved
    yield f"{usage.input_tokens:,}", "input tokens"
    if usage.cached_tokens:
        yield f"{usage.cached_tokens:,}", "of them cached"
    yield f"{usage.output_tokens:,}", "output tokens"
    if usage.reasoning_tokens:
        yield f"{usage.reasoning_tokens:,}", "of them reasoning"
    yield f"{receipt.reserved.tokens:,}", "reserved"
    yield "?" if receipt.cost is None else money(receipt.cost), "cost"
    if receipt.cost is not None and receipt.in_full not in (None, receipt.cost):
        assert receipt.in_full is not None
        yield money(receipt.in_full - receipt.cost), "saved"
    if receipt.waited:
        yield seconds(receipt.waited), "waited"


def _levels(receipt: Receipt) -> list[levels.Level]:
    return [levels.Level(text, Limit.parse(text), left) for text, left in receipt.left.items()]
