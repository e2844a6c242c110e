"""What a guard adds to an SDK call: guarded clients beside bare ones, against a local server.

    python -m benchmarks.clients [--rounds N]

The server is a process of its own, so that its work is in nobody's figures. Targets (the issue's):
at most 0.35 ms more at the median and 1.2 x the CPU of a bare call, 1.1 x per chunk of a stream,
``import quotaguard`` in under 60 ms.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import anthropic
import openai

from benchmarks.rounds import Timing, compare
from quotaguard import Guard, GuardedAnthropic, GuardedOpenAI

CHUNKS = 200
MESSAGES: Any = [
    {"role": "system", "content": "You answer in one sentence."},
    {"role": "user", "content": "Why do token buckets refill continuously? " * 12},
]


@contextmanager
def server(*arguments: str) -> Iterator[str]:
    """The fake provider in a process of its own; its URL."""
    command = [sys.executable, "-m", "quotaguard.testing.provider", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def row(name: str, bare: Timing, guarded: Timing, per: int = 1) -> None:
    """Print a comparison."""
    print(
        f"{name:38s} bare {1e6 * bare.wall / per:6.0f} µs   guarded +"
        f"{1e6 * (guarded.wall - bare.wall) / per:6.1f} µs   x {guarded.wall / bare.wall:5.3f}"
        f"   CPU {1e6 * bare.cpu / per:6.1f} +{1e6 * (guarded.cpu - bare.cpu) / per:6.1f} µs"
        f"   x {guarded.cpu / bare.cpu:5.3f}"
    )


def calls(url: str, rounds: int) -> None:
    """Whole answers."""
    guard = Guard(limits=["1b tokens/day", "1b tokens/minute", "1m requests/minute"])
    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {}
    bare = openai.OpenAI(base_url=f"{url}/v1", api_key="k")
    mine = GuardedOpenAI(base_url=f"{url}/v1", api_key="k", guard=guard, user="alice")
    pairs["openai chat.completions.create"] = (
        lambda: bare.chat.completions.create(model="gpt-4o", messages=MESSAGES),
        lambda: mine.chat.completions.create(model="gpt-4o", messages=MESSAGES),
    )
    claude = anthropic.Anthropic(base_url=url, api_key="k")
    my_claude = GuardedAnthropic(base_url=url, api_key="k", guard=guard, user="alice")
    pairs["anthropic messages.create"] = (
        lambda: claude.messages.create(
            model="claude-sonnet-5", max_tokens=9, messages=MESSAGES[1:]
        ),
        lambda: my_claude.messages.create(
            model="claude-sonnet-5", max_tokens=9, messages=MESSAGES[1:]
        ),
    )
    for name, (plain, guarded) in pairs.items():
        timed = compare({"bare": plain, "guarded": guarded}, rounds=rounds, each=50)
        row(name, timed["bare"], timed["guarded"])


def streams(url: str, rounds: int) -> None:
    """Streams, per chunk."""
    guard = Guard(limits=["1b tokens/day", "1b tokens/minute", "1m requests/minute"])
    bare = openai.OpenAI(base_url=f"{url}/v1", api_key="k")
    mine = GuardedOpenAI(base_url=f"{url}/v1", api_key="k", guard=guard, user="alice")

    claude = anthropic.Anthropic(base_url=url, api_key="k")
    my_claude = GuardedAnthropic(base_url=url, api_key="k", guard=guard, user="alice")

    def read(client: openai.OpenAI) -> None:
        for _ in client.chat.completions.create(model="gpt-4o", messages=MESSAGES, stream=True):
            pass

    def read_claude(client: anthropic.Anthropic) -> None:
        for _ in client.messages.create(
            model="claude-sonnet-5", max_tokens=500, messages=MESSAGES[1:], stream=True
        ):
            pass

    pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "openai": (lambda: read(bare), lambda: read(mine)),
        "anthropic": (lambda: read_claude(claude), lambda: read_claude(my_claude)),
    }
    for name, (plain, guarded) in pairs.items():
        timed = compare({"bare": plain, "guarded": guarded}, rounds=2 * rounds, each=4)
        row(f"{name} stream, per chunk of {CHUNKS}", timed["bare"], timed["guarded"], per=CHUNKS)


def imports() -> None:
    """How long ``import quotaguard`` takes, and what it loads."""
    code = (
        "import sys, time; t = time.perf_counter(); import quotaguard; "
        "print(time.perf_counter() - t, *(m in sys.modules for m in ('openai', 'anthropic')))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(9)
    ]
    seconds = [float(run.stdout.split()[0]) for run in runs]
    print(
        f"import quotaguard: median {1e3 * median(seconds):.0f} ms, "
        f"best {1e3 * min(seconds):.0f} ms; "
        f"openai, anthropic loaded: {' '.join(runs[0].stdout.split()[1:])}"
    )


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    print(
        f"openai {openai.__version__}, anthropic {anthropic.__version__}, "
        f"python {sys.version.split()[0]}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    )
    imports()
    with server() as url:
        calls(url, rounds)
    with server("--chunks", str(CHUNKS)) as url:
        streams(url, rounds)


if __name__ == "__main__":
    main()
