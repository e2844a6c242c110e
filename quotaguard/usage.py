"""What a call used: counts that add up."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

NANO = 10**9
"""Nano-dollars in a US dollar: money is counted in these, as whole numbers."""


class Usage(NamedTuple):
    """Counts of one call, or of many added together.

    ``cached_tokens`` and ``cache_write_tokens`` are parts of ``input_tokens`` (read from and
    written to the provider's prompt cache), ``cache_write_1h_tokens`` is the part of
    ``cache_write_tokens`` that is kept for an hour, at a price of its own; ``reasoning_tokens`` is
    a part of ``output_tokens``. ``nano_usd`` is the cost in billionths of a US dollar; None: it was
    not asked for.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_1h_tokens: int = 0
    nano_usd: int | None = None

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    @property
    def usd(self) -> Decimal | None:
        """The cost in US dollars, exactly; None: it was not asked for."""
        return None if self.nano_usd is None else Decimal(self.nano_usd) / NANO

    @property
    def counts(self) -> tuple[int, ...]:
        """All but the cost."""
        return self[:7]

    def __add__(self, other: object) -> Usage:  # sums, not concatenates; an unknown cost stays so
        if not isinstance(other, Usage):
            return NotImplemented
        counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        mine, theirs = self.nano_usd, other.nano_usd
        cost = None if mine is None or theirs is None else mine + theirs
        return Usage._make([*counts, cost])
