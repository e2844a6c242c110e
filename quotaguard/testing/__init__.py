"""For testing your own quotas, and backends of your own.

`FakeClock` moves time, `FakeProvider` is a real HTTP server that speaks OpenAI and Anthropic,
`disabled` switches every guard off, `BackendContract` is the suite that a backend must pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .. import engine
from .clock import FakeClock
from .contract import BackendContract
from .provider import FakeProvider, Reply

__all__ = ["BackendContract", "FakeClock", "FakeProvider", "Reply", "disabled"]


@contextmanager
def disabled() -> Iterator[None]:
    """Within the block every guard of the process lets every call pass, uncounted."""
    before = engine.switched_on
    engine.switched_on = False
    try:
        yield
    finally:
        engine.switched_on = before
