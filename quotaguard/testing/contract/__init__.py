"""The suite that a backend must pass.

A backend author inherits it in a test file and lets pytest find it::

    class TestMine(BackendContract):
        def make_backend(self, clock):
            return MyBackend(clock)

Each test runs in sync and in async, over a new backend. A backend whose time is a server's says how
it passes by overriding `BackendContract.advance` and `BackendContract.now`.
"""

from __future__ import annotations

from .adjusting import Adjusting
from .admission import Admission
from .leases import Leases
from .lines import Lines
from .settling import Settling
from .summaries import Summaries


class BackendContract(Admission, Settling, Leases, Lines, Adjusting, Summaries):
    """What `quotaguard.backends.Backend` promises, as tests.

    Override ``make_backend(clock)``; ``advance(seconds)`` and ``now()`` if the time is a server's;
    set ``keeps_line = False`` if waiters are not served first come, first served.
    """
