"""The parts of a request's token count, and the tally that adds them up."""

from __future__ import annotations

from typing import NamedTuple


class Parts(NamedTuple):
    """Input tokens of one request, by what they pay for.

    ``messages`` holds the conversation with its framing, ``tools`` the tool definitions and the
    hidden prompt that comes with them, ``schema`` structured output, and ``other`` what has no
    place of its own (encrypted reasoning, embeddings input, legacy prompts). ``guessed`` says how
    much of that stands for pictures and files that could not be seen, as a worst case.
    """

    messages: int = 0
    tools: int = 0
    schema: int = 0
    images: int = 0
    files: int = 0
    audio: int = 0
    other: int = 0
    guessed: int = 0

    @property
    def total(self) -> int:
        """All input tokens; what is guessed is among them."""
        return sum(self) - self.guessed


NAMES = Parts._fields[:-1]
"""The parts that add up, in the order they are shown."""
