"""Tokens of texts: exactly tiktoken's, remembered, stopped early, bounded by bytes."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quotaguard.counting import (
    bound_request,
    count_delivered,
    count_request,
    count_text,
    encodings,
    tokens,
)
from quotaguard.counting.approximate import approximate_tokens
from quotaguard.counting.memo import ENTRY_BYTES, Memo, digest
from quotaguard.counting.pieces import PIECE, pieces
from quotaguard.counting.tokens import Bytes, Exact, LimitPassed
from quotaguard.errors import ConfigurationError

SPECIAL = ["<|endoftext|>", "<|fim_prefix|>", "<|im_start|>", "<|endofprompt|>", "<|return|>"]
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=30),
        st.text(alphabet="ab \n\t.,'0123", max_size=40),
        st.sampled_from(
            [*SPECIAL, " ", "\n\n", "  \n ", "'s", "don't", "\u02bc", "漢字", "。", "🌦️", "\r\n"]
        ),
        st.text(alphabet=st.characters(categories=["Cs"]), max_size=2),
    ),
    max_size=12,
).map("".join)

same_text_again = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@cache
def _fast(encoding: str) -> Any:
    return encodings._load_fast(encoding)


def reference(text: str, encoding: str) -> int:
    """Tiktoken's own count of the whole text."""
    import tiktoken

    return len(tiktoken.get_encoding(encoding).encode_ordinary(text))


@pytest.mark.parametrize("encoding", ["cl100k_base", "o200k_base"])
@given(text=TEXTS)
@same_text_again
def test_the_fast_package_counts_as_tiktoken_does(
    tiktoken_tables: str, encoding: str, text: str
) -> None:
    """Special-token literals, lone surrogates and all."""
    fast = _fast(encoding)

    assert fast(text) == reference(text, encoding)


@pytest.mark.parametrize("encoding", ["cl100k_base", "o200k_base"])
@given(text=TEXTS, size=st.integers(1, 40))
@same_text_again
def test_pieces_add_up_to_the_whole(
    tiktoken_tables: str, encoding: str, text: str, size: int
) -> None:
    """Wherever a piece ends between words, nothing changes."""
    parts = list(pieces(text, size))

    assert "".join(parts) == text
    if all(len(part) != size for part in parts[:-1]):  # none was cut by force
        assert sum(reference(part, encoding) for part in parts) == reference(text, encoding)


@pytest.mark.parametrize("encoding", ["cl100k_base", "o200k_base"])
@pytest.mark.parametrize(
    "sample",
    [
        "The quick brown fox, 1999, jumps over it's lazy dog's (back).\n\n  Then:\t",
        "def f(x):\n    return {'a': [x ** 2 for _ in range(10)]}  # done\n\n\n",
        "吾輩は猫である。名前はまだ無い。どこで生れたか、とんと見当がつかぬ。",
        "Ein Satz mit Umlauten: äöü ß — und Gedankenstrichen… Привет, мир! مرحبا ",
        '{"name": "x", "values": [1, 2.5, null], "text": "a\\nb"}, ',
        "<|endoftext|> and <|im_start|>user 🎉🚀 ",
    ],
)
def test_long_texts_count_exactly_in_pieces(exact: str, encoding: str, sample: str) -> None:
    """A hundred kilobytes of prose, code, JSON or Japanese, as if in one go."""
    text = sample * (100_000 // len(sample))

    assert Exact(encoding)(text) == reference(text, encoding)


def test_text_that_must_be_cut_by_force_is_off_by_a_token_a_cut(exact: str) -> None:
    """Base64 has no place between words: a piece every 8 kB, a token each."""
    text = "aGVsbG8gd29ybGQh" * 20_000
    counted, whole = Exact("o200k_base")(text), reference(text, "o200k_base")

    assert 0 <= counted - whole <= len(text) / PIECE


@given(text=TEXTS)
@same_text_again
def test_no_count_exceeds_the_bytes(exact: str, text: str) -> None:
    """Neither the exact one nor the approximation."""
    bound = Bytes()(text)

    assert count_text(text) <= bound
    assert approximate_tokens(text) <= bound


def test_the_approximation_is_never_zero_for_a_text(without_tables: None) -> None:
    """Offline is no way round a limit."""
    assert count_text("") == 0
    assert count_text("x") == 1
    assert count_text(" ") == 1


@pytest.mark.parametrize(
    "text",
    [
        "You are a helpful assistant. Answer in one short sentence, and say why.",
        "import os\n\nfor name in os.listdir('.'):\n    print(name.upper(), len(name))\n" * 3,
        '{"type": "object", "properties": {"city": {"type": "string"}}}',
        "人工智能是计算机科学的一个分支\uff0c它企图了解智能的实质。",
        "Künstliche Intelligenz ist ein Teilgebiet der Informatik.",
        "https://example.org/a/b?c=1&d=2#e 2024-01-01T00:00:00Z",
        "aGVsbG8gd29ybGQgaG93IGFyZSB5b3U/" * 20,
        "0123456789" * 50,
    ],
)
def test_the_approximation_errs_upward(exact: str, text: str) -> None:
    """At most a few percent short, and not absurdly long."""
    true = max(reference(text, "cl100k_base"), reference(text, "o200k_base"))

    assert 0.95 * true <= approximate_tokens(text) <= 4 * true


def test_claude_text_is_a_model_on_the_yardstick(exact: str) -> None:
    """1.27 a token less 0.3 a word; 1.5 and 0.2 for the tokenizer since Opus 4.7."""
    text = "one two three four five"
    assert reference(text, "cl100k_base") == 5

    assert count_text(text, "claude-sonnet-4-5") == 5
    assert count_text(text, "claude-opus-5") == 7
    assert count_delivered(text, "us.anthropic.claude-opus-5-v1:0") == 7


def test_a_count_stops_once_the_limit_is_passed(
    exact: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A text far too long is not counted to its end."""
    seen: list[int] = []
    counted = encodings.count_piece

    def spying(count: Any, text: str) -> int:
        seen.append(len(text))
        return counted(count, text)

    monkeypatch.setattr(tokens, "count_piece", spying)
    text = "word " * 200_000

    assert 1000 < count_text(text, stop_after=1000) < 200_000
    assert len(seen) == 1
    assert count_text("word " * 10, stop_after=1000) == 11


def test_a_request_stops_once_the_limit_is_passed(exact: str) -> None:
    """The answer is then some number above the limit; otherwise it is the count."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "word " * 10_000}] * 20}
    whole = count_request("chat", body)

    assert whole > 200_000
    assert 5_000 < count_request("chat", body, stop_after=5_000) <= whole
    assert count_request("chat", body, stop_after=whole) == whole
    assert bound_request("chat", body) >= whole


def test_a_growing_conversation_counts_only_what_is_new(
    exact: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Turn by turn, each long message is tokenised once."""
    tokenised: list[str] = []
    counted = encodings.count_piece
    monkeypatch.setattr(
        tokens, "count_piece", lambda count, text: tokenised.append(text) or counted(count, text)
    )
    messages = []
    for turn in range(20):
        messages.append({"role": "user", "content": f"{turn} " + "a longer message " * 30})
        count_request("chat", {"model": "gpt-4o", "messages": list(messages)})

    assert len([text for text in tokenised if len(text) > 100]) == 20


def test_remembered_counts_hold_no_text() -> None:
    """A digest of sixteen bytes and a number, told apart by encoding."""
    key = digest("a secret prompt", "o200k_base")

    assert len(key) == 16
    assert b"secret" not in key
    assert key != digest("a secret prompt", "cl100k_base")


def test_approximate_counts_are_not_remembered(without_tables: None) -> None:
    """A table may yet arrive."""
    count_text("word " * 100)

    assert len(tokens.memo) == 0


def test_the_memo_forgets_the_least_recently_used() -> None:
    """It is bounded in bytes."""
    memo = Memo(max_bytes=2 * ENTRY_BYTES)
    memo.put(b"a", 1)
    memo.put(b"b", 2)
    assert memo.get(b"a") == 1
    memo.put(b"c", 3)

    assert (memo.get(b"a"), memo.get(b"b"), memo.get(b"c")) == (1, None, 3)
    assert len(memo) == 2


def test_a_memo_of_no_bytes_remembers_nothing() -> None:
    """And less than none is a mistake."""
    off = Memo(max_bytes=0)
    off.put(b"a", 1)

    assert off.get(b"a") is None
    with pytest.raises(ConfigurationError, match="-1"):
        Memo(max_bytes=-1)


def test_threads_share_the_memo(exact: str) -> None:
    """Counting is the same from many threads at once."""
    text = "some words to count " * 50
    expected = reference(text, "o200k_base")
    found: list[int] = []

    def work() -> None:
        found.extend(count_text(text) for _ in range(50))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert found == [expected] * 400


def test_the_limit_signal_carries_the_count() -> None:
    """Which is above the limit."""
    assert LimitPassed(7).tokens == 7
