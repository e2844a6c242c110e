"""Bodies made of the keys and kinds that formulas look for, put together in any way."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quotaguard.counting import ENDPOINTS, bound_request, count_request

KEYS = """
type role content text name arguments function tools tool_calls call_id output input
source image_url url data file schema json_schema properties items anyOf enum required
$ref $defs description parameters format title default minimum messages system prompt
instructions tool_choice
"""
KINDS = """
function text image_url input_image document tool_use tool_result function_call reasoning
function_call_output file input_audio object array string integer json_schema thinking
user assistant tool system #/$defs/a #
"""
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats()
    | st.sampled_from(KINDS.split())
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS.split()) | st.text(max_size=2), inner, max_size=6)
    ),
    max_leaves=40,
)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@given(body=st.dictionaries(st.sampled_from(KEYS.split()), VALUES, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_is_counted_and_bounded(
    without_tables: None, endpoint: str, body: dict[str, Any]
) -> None:
    """Bodies made of the keys and kinds that formulas look for, in any order."""
    assert 0 <= count_request(endpoint, body) <= bound_request(endpoint, body)
