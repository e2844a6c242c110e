"""What a call used: counts that add up."""

from __future__ import annotations

from typing import NamedTuple


class Usage(NamedTuple):
    """Counts of one call, or of many added together.

    ``cached_tokens`` and ``cache_write_tokens`` are parts of ``input_tokens`` (read from and
    written to the provider's prompt cache); ``reasoning_tokens`` is a part of ``output_tokens``.
    """

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: object) -> Usage:  # sums, not concatenates
        if not isinstance(other, Usage):
            return NotImplemented
        return Usage(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))
