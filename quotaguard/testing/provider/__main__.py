"""Serves a `FakeProvider`; the first line it prints is the URL.

It stops when its standard input closes, or with SIGTERM.
"""

from __future__ import annotations

import argparse
import signal
import sys

from . import FakeProvider, Reply


def main(arguments: list[str] | None = None) -> None:
    """Parses the arguments, prints the URL, and serves."""
    parser = argparse.ArgumentParser(
        prog="python -m quotaguard.testing.provider",
        description="A provider that speaks OpenAI's and Anthropic's APIs, on 127.0.0.1. "
        "It serves until standard input closes.",
    )
    parser.add_argument("--port", type=int, default=0, help="default: chosen by the system")
    parser.add_argument("--text", help="the answer; default: a sentence")
    parser.add_argument("--input-tokens", type=int, help="default: the words of the request")
    parser.add_argument("--output-tokens", type=int, help="default: the words of the answer")
    parser.add_argument("--chunks", type=int, help="pieces of a stream; default: one for each word")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before an answer")
    parser.add_argument("--rpm", type=int, help="requests a minute let through; default: all")
    parser.add_argument("--tpm", type=int, help="tokens a minute let through; default: all")
    chosen = parser.parse_args(arguments)
    try:
        reply = Reply(
            text=chosen.text,
            input_tokens=chosen.input_tokens,
            output_tokens=chosen.output_tokens,
            chunks=chosen.chunks,
            latency=chosen.latency,
        )
        provider = FakeProvider(
            reply, port=chosen.port, rpm=chosen.rpm, tpm=chosen.tpm, remember=1000
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with provider:
        sys.stdout.write(f"{provider.url}\n")
        sys.stdout.flush()
        while sys.stdin.buffer.read(65536):
            continue


if __name__ == "__main__":
    main()
