"""The ``quotaguard`` command (extra ``quotaguard[cli]``)."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command with the process's arguments, and exit."""
    try:
        from .app import cli
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("click", "rich"):
            raise
        sys.stderr.write(f"quotaguard: it needs {missing}: pip install 'quotaguard[cli]'\n")
        sys.exit(2)
    cli()
