"""The ledger in Redis.

``backend.py`` is the door; ``connect.py`` knows where Redis is, ``wire.py`` what the script is
sent and answers, ``calls.py`` and ``coalesce.py`` how operations travel together, ``failure.py``
what goes wrong, ``bells.py`` who waits. The rules are in ``../lua``.
"""

from __future__ import annotations

from .backend import RedisBackend

__all__ = ["RedisBackend"]
