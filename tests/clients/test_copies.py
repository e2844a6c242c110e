"""``copy`` and ``with_options``: the SDK's options, and the guard."""

from __future__ import annotations

import gc
import tracemalloc
from importlib import import_module
from typing import Any

import pytest

from quotaguard import ConfigurationError
from tests.clients.kit import got, http_library, new_guard, run
from tests.clients.twins import both, each_class, state

COPIES: list[dict[str, Any]] = [
    {},
    {"api_key": "another"},
    {"base_url": "http://elsewhere/v2"},
    {"timeout": 3.5},
    {"timeout": None},
    {"max_retries": 7},
    {"default_headers": {"x-one": "1"}},
    {"set_default_headers": {"x-two": "2"}},
    {"default_query": {"one": "1"}},
    {"set_default_query": {"two": "2"}},
]


@pytest.mark.parametrize("options", COPIES, ids=str)
@each_class
def test_copies_have_the_same_options(
    plain: Any, guarded: Any, settings: Any, options: Any
) -> None:
    """Each option of ``copy`` does what it does on the plain class, and the guard comes along."""
    more = {"default_headers": {"x-zero": "0"}, "default_query": {"zero": "0"}, "max_retries": 4}
    theirs, ours = both(plain, guarded, **settings, **more)
    copied = ours.copy(**options)
    assert state(copied) == state(theirs.copy(**options))
    assert type(copied) is guarded
    assert copied is not ours
    assert copied._quotaguard == ours._quotaguard
    assert copied._client is ours._client
    for client in (ours, theirs):
        run(got(client.close()))


@each_class
def test_a_copy_may_have_a_client_of_its_own(plain: Any, guarded: Any, settings: Any) -> None:
    """``http_client`` on construction and on copying, as with the plain class."""
    kind = "Client" if "Async" not in plain.__name__ else "AsyncClient"
    client = guarded(**settings, guard=new_guard())
    library = http_library(client)
    mine, other = (getattr(library, kind)() for _ in range(2))
    given = guarded(**settings, guard=new_guard(), http_client=mine)
    assert given._client is mine
    assert given.copy(http_client=other)._client is other
    for each in (client, given, given.copy(http_client=other)):
        run(got(each.close()))
    assert mine.is_closed
    assert other.is_closed


@each_class
def test_options_that_exclude_each_other(plain: Any, guarded: Any, settings: Any) -> None:
    """The SDK's own errors come through."""
    client = guarded(**settings, guard=new_guard())
    with pytest.raises(ValueError, match="mutually exclusive"):
        client.copy(default_headers={}, set_default_headers={"x": "y"})
    with pytest.raises(ValueError, match="mutually exclusive"):
        client.copy(default_query={}, set_default_query={"x": "y"})
    with pytest.raises(TypeError, match="unexpected"):
        client.copy(no_such_option=1)
    with pytest.raises(TypeError, match="unexpected"):
        guarded(**settings, no_such_option=1)
    run(got(client.close()))


@each_class
def test_the_guard_is_an_option_too(plain: Any, guarded: Any, settings: Any) -> None:
    """A copy may act for somebody else, under another guard; what is left out stays."""
    one, two = new_guard(), new_guard()
    client = guarded(**settings, guard=one, user="alice", org="acme")
    other = client.with_options(user="bob")
    assert (other._quotaguard.guard, other._quotaguard.identity()) == (one, ("bob", "acme", None))
    assert client._quotaguard.identity() == ("alice", "acme", None)
    assert client.copy(guard=two)._quotaguard.guard is two
    assert client.copy(limits=["1 request/day"])._quotaguard.guard not in (one, two)
    with pytest.raises(ConfigurationError, match="guard= or limits="):
        client.copy(guard=two, limits=["1 request/day"])
    with pytest.raises(ConfigurationError, match=r"quotaguard\.Guard"):
        guarded(**settings, guard="alice")
    with pytest.raises(ConfigurationError, match="user is a non-empty string"):
        guarded(**settings, guard=one, user="")
    run(got(client.close()))


@each_class
def test_copies_and_requests_do_not_leak(plain: Any, guarded: Any, settings: Any) -> None:
    """The SDKs' tests take the memory before and after; so do we."""
    client = guarded(**settings, guard=new_guard())
    models = import_module(f"{plain.__module__.partition('.')[0]}._models")
    options = models.FinalRequestOptions(method="post", url="/foo", json_data={"model": "m"})

    def build() -> None:
        client.copy()._build_request(options)

    for _ in range(3):
        build()
    gc.collect()
    tracemalloc.start(5)
    try:
        before = tracemalloc.take_snapshot()
        for _ in range(10):
            build()
        gc.collect()
        after = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    grown = [
        each
        for each in after.compare_to(before, "traceback")
        if each.count_diff >= 10 and "quotaguard" in str(each.traceback)
    ]
    assert grown == []
    run(got(client.close()))
