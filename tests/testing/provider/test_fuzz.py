"""No body, however odd, brings the provider down or off its shapes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quotaguard.testing.provider import FakeProvider, Reply
from tests.testing.provider.calls import RawClient

LEAVES = st.none() | st.booleans() | st.integers(-5, 300) | st.text(max_size=5) | st.floats(0, 1)
ANY = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "content", "text", "format"]), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = (
    "model", "messages", "input", "prompt", "system", "max_tokens", "max_output_tokens", "n",
    "dimensions", "stream", "stream_options", "response_format", "text", "output_config",
    "background", "store", "encoding_format", "metadata", "tools",
)  # fmt: skip
SCHEMAS = st.fixed_dictionaries(
    {"type": st.just("json_schema"), "json_schema": st.fixed_dictionaries({"schema": ANY})}
)
BODIES = st.dictionaries(st.sampled_from(FIELDS), ANY | SCHEMAS, max_size=8)
PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/responses/compact",
    "/v1/responses/input_tokens",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/model/m/invoke",
    "/model/m/invoke-with-response-stream",
)


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES)
def test_odd_requests_are_answered_or_refused(
    provider: FakeProvider, raw: RawClient, path: str, body: dict[str, Any]
) -> None:
    """Each gets an answer or a 400, on a connection that goes on."""
    assert raw(path, body).status in (200, 400)
    assert provider.requests[-1].body == body


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    chunks=st.none() | st.integers(1, 60),
)
def test_text_survives_being_cut_into_chunks(
    provider: FakeProvider, raw: RawClient, text: str, chunks: int | None
) -> None:
    """Whatever the text and the number of pieces, they make it up again."""
    provider.enqueue(Reply(text=text, chunks=chunks))
    events = raw("/v1/messages", {"model": "m", "max_tokens": 99, "messages": [], "stream": True})
    deltas = [event["delta"] for event in events.events if event["type"] == "content_block_delta"]
    assert "".join(delta["text"] for delta in deltas) == text
    if chunks is not None:
        assert len(deltas) == chunks
