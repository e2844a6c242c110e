"""The money question of the stress test: what does it save to block so many users a day?"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import version

from .pricing import Price, Prices, price_page
from .usage import NANO, Usage


@dataclass(frozen=True, slots=True)
class Savings:
    """What blocking saves; ``str(savings)`` says it, with what it assumes.

    Attributes:
        model: the model that the blocked calls asked for.
        users: how many users are blocked like this each day.
        calls: blocked calls of one user in a day.
        each: what one user's blocked calls would have used and cost.
        assumptions: what the sum takes for granted, a sentence each.
    """

    model: str
    users: int
    calls: int
    each: Usage
    assumptions: tuple[str, ...]

    @property
    def per_day(self) -> Decimal:
        """US dollars a day, exactly."""
        return Decimal(self.users * (self.each.nano_usd or 0)) / NANO

    @property
    def per_year(self) -> Decimal:
        """US dollars in 365 days."""
        return self.per_day * 365

    def __str__(self) -> str:
        used = f"{self.each.input_tokens:,} input and {self.each.output_tokens:,} output tokens"
        lines = (
            f"{self.users:,} users a day, {self.calls} blocked calls each: that saves",
            f"${self.per_day:,.2f} a day, ${self.per_year:,.2f} a year.",
            f"The blocked calls of one user: {used} of {self.model}, ${self.each.usd:f}.",
            *(f"Assumed: {each}" for each in self.assumptions),
        )
        return "\n".join(lines)


def saved_by_blocking(
    blocked: Iterable[Usage],
    model: str,
    *,
    users: int = 1000,
    price: Price | None = None,
    assumed: Iterable[str] = (),
) -> Savings:
    """What it saves each day that users are blocked.

    Args:
        blocked: what each blocked call of one user would have used.
        model: the model that they asked for.
        users: how many users are blocked like that each day.
        price: of that model (default: what the list of genai-prices says today).
        assumed: what the numbers take for granted besides, a sentence each.

    Raises:
        PriceUnknown: there is no price.
    """
    usages = list(blocked)
    source = "as given"
    if price is None:
        price = Prices({}, "refuse", time.time).of(model)
        source = f"by genai-prices {version('genai-prices')}"
        if page := price_page(model):
            source += f", recorded from {page}"
    total = Usage(nano_usd=0)
    for usage in usages:
        total += usage._replace(nano_usd=price.nano_usd(usage))
    dollars = f"{_dollars(price.input)} for a million input tokens and {_dollars(price.output)} for"
    return Savings(
        model,
        users,
        len(usages),
        total,
        (
            f"{model} costs {dollars} a million output tokens, {source}.",
            *assumed,
            "Without the quota each blocked call would have been made once and answered in full.",
            "Nobody pays for the call elsewhere, or makes it again the next day.",
        ),
    )


def _dollars(price: Decimal) -> str:
    """A price with its cents, and with whatever it has beyond them."""
    return f"${price}" if price != round(price, 2) else f"${price:.2f}"
