"""Runs the benchmarks, or those that are named: ``python -m benchmarks [clients memory ...]``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ALL = sorted(
    path.stem
    for path in Path(__file__).parent.glob("*.py")
    if not path.stem.startswith("_") and path.stem != "rounds"
)


def main() -> int:
    """Run each in a process of its own, so that none warms up another."""
    wanted = sys.argv[1:] or ALL
    if unknown := set(wanted) - set(ALL):
        print(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
        return 2
    failed = 0
    for name in wanted:
        print(f"== {name}", flush=True)
        failed |= subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}"], check=False
        ).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
