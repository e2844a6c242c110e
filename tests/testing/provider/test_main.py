"""`python -m quotaguard.testing.provider`."""

from __future__ import annotations

import subprocess
import sys

from tests.testing.provider.calls import RawClient, chat, message

COMMAND = [sys.executable, "-m", "quotaguard.testing.provider"]


def test_serves_until_its_input_closes() -> None:
    """The URL is the first line; it serves the scripted figures until its input closes."""
    options = ["--input-tokens", "12", "--output-tokens", "7", "--text", "abc", "--chunks", "3"]
    with subprocess.Popen(
        [*COMMAND, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().strip()
        client = RawClient(url)
        events = client("/v1/messages", message(stream=True)).events
        usage = client("/v1/chat/completions", chat()).json["usage"]
        client.connection.close()
        process.stdin.close()
        assert process.wait(timeout=10) == 0
        assert process.stderr.read() == ""
    assert [event["type"] for event in events].count("content_block_delta") == 3
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (12, 7)


def test_stops_at_sigterm() -> None:
    """As a service manager ends it: at once, and with success."""
    with subprocess.Popen(
        COMMAND,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.wait(timeout=10) == 0


def test_refuses_what_a_reply_refuses() -> None:
    """With the same words, and status 2 as for any wrong option."""
    command = [*COMMAND, "--input-tokens", "-1"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "input_tokens must be a whole number, zero or more, not -1" in refused.stderr
