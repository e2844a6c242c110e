"""A call's facts on the span that was current when it was admitted."""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary, WeakValueDictionary

from opentelemetry import trace

from ...events import Event, Settled
from ...usage import Usage
from ..attributes import USER, Value, attributes, usage_facts


class Spans:
    """Sets attributes on spans.

    A stream settles when it ends, perhaps in another task or thread, so a call keeps to the span
    that it was first seen in. Usage adds up over the calls of one span, so that a function around
    several of them, charged nothing itself, does not wipe theirs out.
    """

    def __init__(self, users: bool) -> None:
        self._users = users
        self._lock = threading.Lock()
        self._of_call: WeakValueDictionary[str, trace.Span] = WeakValueDictionary()
        self._used: WeakKeyDictionary[trace.Span, Usage] = WeakKeyDictionary()

    def __call__(self, event: Event) -> None:
        """Say what the event says."""
        span = self._of_call.get(event.id) or trace.get_current_span()
        if not span.is_recording():
            return
        facts = attributes(event)
        if not self._users:
            facts.pop(USER, None)
        if isinstance(event, Settled):
            if event.used is not None:
                facts.update(self._sum(span, event.used))
        else:
            self._of_call[event.id] = span
        span.set_attributes(facts)

    def _sum(self, span: trace.Span, used: Usage) -> dict[str, Value]:
        with self._lock:
            before = self._used.get(span)
            total = self._used[span] = used if before is None else before + used
        return dict(usage_facts(total))
