"""A provider on this machine, for tests of quotas: real HTTP, made-up answers, no key, no cost.

`python -m quotaguard.testing.provider` serves one from a process of its own.
"""

from __future__ import annotations

from .record import Seen, Served
from .replies import Reply
from .server import FakeProvider

__all__ = ["FakeProvider", "Reply", "Seen", "Served"]
