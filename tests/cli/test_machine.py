"""``count`` and ``doctor``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.kit import run

BODY = {
    "model": "gpt-4o",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "hello there"}],
}


def test_count_prints_the_parts_and_the_price() -> None:
    """A body on standard input is counted by part, and priced."""
    result = run("count", "-", "--json", text=json.dumps(BODY))
    report = json.loads(result.output)
    assert result.exit_code == 0
    assert report["endpoint"] == "chat"
    assert report["input_tokens"] == report["input"]["messages"] == 9
    assert (report["output_tokens"], report["output_is"]) == (50, "stated")
    assert report["usd_at_most"] > 0


def test_count_reads_a_file_and_prints_a_table(tmp_path: Path) -> None:
    """Without --json the same stands in lines."""
    file = tmp_path / "body.json"
    file.write_text(json.dumps({"model": "claude-sonnet-4-5", "messages": BODY["messages"]}))
    result = run("count", str(file))
    assert result.exit_code == 0
    assert "messages" in result.output
    assert "guessed" in result.output


@pytest.mark.parametrize(
    ("body", "endpoint"),
    [
        ({"model": "gpt-4o", "input": "hi"}, "responses"),
        ({"model": "text-embedding-3-small", "input": "hi"}, "embeddings"),
        ({"model": "gpt-3.5-turbo-instruct", "prompt": "hi"}, "completions"),
        ({"anthropic_version": "bedrock-2023-05-31", "messages": []}, "messages"),
    ],
)
def test_count_knows_the_endpoint_by_the_keys(body: dict[str, object], endpoint: str) -> None:
    """Nobody has to say what the body shows."""
    assert json.loads(run("count", "-", "--json", text=json.dumps(body)).output)["endpoint"] == (
        endpoint
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("{", "is no JSON"), ("[]", "no JSON object but list"), ("{}", "neither messages nor input")],
)
def test_count_says_what_is_wrong_with_its_input(text: str, complaint: str) -> None:
    """An error is a sentence and an exit code, not a traceback."""
    result = run("count", "-", text=text)
    assert result.exit_code == 1
    assert complaint in result.stderr


def test_doctor_says_how_tokens_are_counted() -> None:
    """And which packages are there."""
    result = run("doctor", "--json")
    report = json.loads(result.output)
    assert result.exit_code == 0
    assert report["counting"]["name"]
    assert report["quotaguard"][0].isdigit()


def test_doctor_fails_on_a_wrong_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exit code can be used by scripts."""
    file = tmp_path / "quotaguard.toml"
    file.write_text('limits = ["many tokens"]')
    monkeypatch.setenv("QUOTAGUARD_CONFIG", str(file))
    result = run("doctor")
    assert result.exit_code == 1
    assert "cannot read the limit 'many tokens'" in result.output
