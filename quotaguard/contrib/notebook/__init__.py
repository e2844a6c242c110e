"""Quotas in notebooks (extra ``quotaguard[notebook]``): ``%load_ext quotaguard``.

``%%quota "10k tokens/day" --user alice`` on a cell puts its calls under limits and shows below it
what they cost; ``%quota`` shows the levels.
"""

from __future__ import annotations

from .extension import load_ipython_extension, unload_ipython_extension
from .guard import NotebookGuard, ledger

__all__ = ["NotebookGuard", "ledger", "load_ipython_extension", "unload_ipython_extension"]
