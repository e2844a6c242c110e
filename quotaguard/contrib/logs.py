"""Events in the standard library's log, by stable names and with structured fields."""

from __future__ import annotations

import json
import logging
import re

from ..events import Admitted, BackendFailed, Event, Refused, Settled, UsageUnreadable
from .attributes import Value, attributes, name_of

_LEVELS: dict[type[Event], int] = {
    Admitted: logging.DEBUG,
    Settled: logging.DEBUG,
    Refused: logging.WARNING,
    UsageUnreadable: logging.WARNING,
    BackendFailed: logging.ERROR,
}
_PLAIN = re.compile(r"[\w.,:/@*+-]+", re.ASCII)


class LogEvents:
    """A hook that logs each event: ``Guard(hooks=[LogEvents()])``.

    A record's message begins with the event's name (``quotaguard.refused``), and its facts follow
    as ``name=value``. The same are attributes of the record (logging's ``extra``), with the name as
    ``quotaguard.event``, for formatters that write JSON. Every call is told at DEBUG, detours at
    INFO, refusals at WARNING and a ledger that is away at ERROR.

    Args:
        logger: where to (default: the logger ``quotaguard.events``).
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("quotaguard.events")

    def __call__(self, event: Event, /) -> None:
        """Log one event."""
        level = _LEVELS.get(type(event), logging.INFO)
        if not self._logger.isEnabledFor(level):
            return
        name, facts = name_of(event), attributes(event)
        extra = {"quotaguard.event": name, **facts}
        self._logger.log(level, f"{name} %s", _Line(facts), extra=extra)  # noqa: G004  # a constant


class _Line:
    """Facts as ``name=value``, made only if somebody writes them."""

    __slots__ = ("_facts",)

    def __init__(self, facts: dict[str, Value]) -> None:
        self._facts = facts

    def __str__(self) -> str:
        return " ".join(f"{name}={_shown(value)}" for name, value in self._facts.items())


def _shown(value: Value) -> str:
    """A value that stays on its line and ends where it ends, whatever a user is called."""
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
