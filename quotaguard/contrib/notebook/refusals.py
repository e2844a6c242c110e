"""Refusals in a notebook: the sentence and the line of the cell, not sixty lines of traceback."""

from __future__ import annotations

import traceback

from ...errors import ModelNotAllowed, QuotaExceeded

_KINDS = (QuotaExceeded, ModelNotAllowed)
_HOOK = "_render_traceback_"
"""IPython asks an exception for this before it writes a traceback by itself."""
_RED, _PLAIN = "\033[31m", "\033[0m"


def shorten(*, on: bool) -> None:
    """Have IPython show refusals shortly, or as any other error."""
    for kind in _KINDS:
        if on:
            setattr(kind, _HOOK, _rendered)
        elif _HOOK in vars(kind):
            delattr(kind, _HOOK)


def _rendered(error: BaseException) -> list[str]:
    """What the error says, and the lines of the user's own code that led to it."""
    own = [
        f"  line {frame.lineno}: {frame.line}"
        for frame, (code, _) in zip(
            traceback.extract_tb(error.__traceback__),
            traceback.walk_tb(error.__traceback__),
            strict=True,
        )
        if code.f_globals.get("__name__") == "__main__"
    ]
    return [f"{_RED}{type(error).__name__}{_PLAIN}: {error}", *own[-2:]]
