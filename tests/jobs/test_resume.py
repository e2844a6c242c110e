"""Jobs that are resumed from a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quotaguard import ConfigurationError
from quotaguard.jobs.finished import FinishedItems, Found
from quotaguard.testing import FakeProvider, Reply
from quotaguard.testing.provider import Seen
from tests.jobs.kit import Way, each_way, new_guard

PROMPT = "the secret of the house"
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a job."""
    return tmp_path / "job.jsonl"


class Worker:
    """A function that remembers what it was called with, and fails where it is told to."""

    def __init__(self, *fails: Any) -> None:
        self.fails = fails
        self.seen: list[Any] = []

    async def __call__(self, item: Any) -> Any:
        """Work."""
        self.seen.append(item)
        if item in self.fails:
            raise ValueError(item)
        return {"of": item}


@each_way
def test_what_is_done_is_not_done_again(way: Way, path: Path) -> None:
    """What failed is; so a second run finishes the job."""
    first, second, third = Worker(3, 5), Worker(), Worker()
    guard = new_guard()
    way.run(guard, first, range(8), resume=path, errors="collect")
    again = way.run(guard, second, range(8), resume=path)
    assert sorted(second.seen) == [3, 5]
    assert again == [{"of": 3}, {"of": 5}]
    assert way.run(guard, third, range(10), resume=path) == [{"of": 8}, {"of": 9}]


@each_way
@pytest.mark.parametrize("ordered", [True, False])
def test_kept_results_are_handed_out_again(way: Way, path: Path, ordered: bool) -> None:
    """In their places, as if the job had never been interrupted."""
    first, second = Worker(3), Worker()
    guard = new_guard()
    terms = {"resume": path, "keep_results": True, "errors": "collect", "ordered": ordered}
    way.run(guard, first, range(100), **terms)
    done = way.run(guard, second, range(100), **terms)
    assert second.seen == [3]
    done.sort(key=lambda each: each.index)
    assert [each.result for each in done] == [{"of": item} for item in range(100)]
    assert [each.item for each in done if not each.resumed] == [3]


@each_way
def test_equal_items_are_items_of_their_own(way: Way, path: Path) -> None:
    """Five times the same prompt is five answers, however often the job was interrupted."""
    guard, first, second = new_guard(), Worker(), Worker()
    way.run(guard, first, ["a"] * 5 + ["b"], most=2, concurrency=1, resume=path)
    done = len(path.read_text().splitlines())
    way.run(guard, second, ["a"] * 5 + ["b"], resume=path)
    assert len(second.seen) == 6 - done


@each_way
def test_no_prompt_is_stored(way: Way, path: Path) -> None:
    """The file of a job tells who reads it nothing of what was asked or answered."""
    way.run(new_guard(), Worker(), [PROMPT, {"messages": [PROMPT]}], resume=path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [list(line) for line in lines] == [["key"], ["key"]]
    assert "secret" not in path.read_text()


def test_items_are_named_as_you_like(path: Path) -> None:
    """By an id of your own, for items that are no JSON values or change in what does not matter."""
    guard = new_guard()
    items = [{"id": n, "at": object()} for n in range(3)]
    for _ in range(2):
        list(guard.map(str, items, resume=path, key=lambda item: item["id"]))
        assert sorted(path.read_text().split()) == ['{"key":"0"}', '{"key":"1"}', '{"key":"2"}']


@pytest.mark.parametrize(
    ("item", "terms"),
    [(object(), {}), ("x", {"key": lambda item: None}), ("x", {"key": lambda item: True})],
    ids=["no JSON", "None", "True"],
)
def test_an_item_without_a_name_is_an_error(path: Path, item: Any, terms: Any) -> None:
    """Else it would be done again and again."""
    with pytest.raises(ConfigurationError, match="key") as wrong:
        list(new_guard().map(str, [item], resume=path, **terms))
    assert "object at" not in str(wrong.value)


@each_way
def test_a_result_that_cannot_be_kept_ends_the_job(way: Way, path: Path) -> None:
    """Not when the whole job was paid for: at the first."""

    async def work(item: int) -> object:
        return object()

    with pytest.raises(ConfigurationError, match="no JSON value"):
        way.run(new_guard(), work, range(100), resume=path, keep_results=True, errors="collect")


def test_a_file_without_results_cannot_hand_them_out(path: Path) -> None:
    """Who asks for them is told, and not given a shorter list."""
    guard = new_guard()
    list(guard.map(str, range(3), resume=path))
    with pytest.raises(ConfigurationError, match="without their results"):
        list(guard.map(str, range(3), resume=path, keep_results=True))


def test_results_are_written_before_anybody_asks_for_them(path: Path) -> None:
    """Whoever did an item writes it down: a consumer that dies loses nothing that was paid for."""
    began = threading.Barrier(3)

    def work(item: int) -> int:
        began.wait(20)
        return item

    job = new_guard().map(work, range(3), concurrency=3, resume=path)
    assert next(job) == 0
    job.close()
    assert len(path.read_text().splitlines()) == 3


@given(st.lists(json_values, min_size=1, max_size=5), st.data())
def test_a_cut_file_costs_the_cut_item_alone(
    tmp_path_factory: pytest.TempPathFactory, results: list[Any], data: st.DataObject
) -> None:
    """Wherever a process died in writing, the rest is read, and what is written then as well."""
    path = tmp_path_factory.mktemp("cut") / "job.jsonl"
    file = FinishedItems(path, str, keep_results=True)
    for number, result in enumerate(results):
        file.add(str(number), result)
    file.close()
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    path.write_bytes(whole[: data.draw(st.integers(last, len(whole) - 2))])
    second = FinishedItems(path, str, keep_results=True)
    second.load()
    second.add("next", "one")
    second.close()
    third = FinishedItems(path, str, keep_results=True)
    third.load()
    assert [third.take(str(n)) for n in range(len(results) - 1)] == [
        Found(True, result) for result in results[:-1]
    ]
    assert third.take(str(len(results) - 1)) is None
    assert third.take("next") == Found(True, "one")
    assert third.take("next") is None


@pytest.mark.parametrize("line", ["", "7", "[]", "{}", '{"key":7}', "[" * 100_000, "\x00\xff"])
def test_what_is_no_finished_item_is_left_out(path: Path, line: str) -> None:
    """And what stands around it counts."""
    path.write_text(f'{{"key":"1"}}\n{line}\n{{"key":"2"}}\n')
    worker = Worker()
    Way("threads").run(new_guard(), worker, [1, 2, 3], resume=path, key=str)
    assert worker.seen == [3]


_JOB = """
import sys
from quotaguard import Guard, GuardedOpenAI
guard = Guard(limits=["1M tokens/day"])
client = GuardedOpenAI(guard=guard, user="u", base_url=sys.argv[1], api_key="none", max_retries=0)
def ask(item):
    said = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": f"number {item}"}]
    )
    return said.choices[0].message.content
for answer in guard.map(ask, range(12), concurrency=3, resume=sys.argv[2], keep_results=True):
    print(answer, flush=True)
"""


def test_a_job_goes_on_after_kill_9(path: Path) -> None:
    """No finished item is asked for again, no other is lost, and the results are all there."""
    stall = threading.Event()

    def reply(seen: Seen) -> Reply:
        words = seen.body["messages"][0]["content"]
        held = stall if words in ("number 6", "number 7", "number 8") else None
        return Reply(text=f"answer to {words}", hold=held)

    with FakeProvider(reply) as provider:
        command = [sys.executable, "-c", _JOB, provider.openai_url, str(path)]
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        first = subprocess.Popen(command, stdout=subprocess.PIPE, env=env, text=True)
        provider.wait_until(lambda seen: len(seen) == 9, timeout=30)
        os.kill(first.pid, signal.SIGKILL)
        first.communicate(timeout=30)
        assert len(path.read_text().splitlines()) == 6
        stall.set()
        provider.clear()
        second = subprocess.run(
            command, check=False, capture_output=True, env=env, text=True, timeout=30
        )
        asked = sorted(seen.body["messages"][0]["content"] for seen in provider.requests)
    assert second.stderr == ""
    assert second.stdout.splitlines() == [f"answer to number {n}" for n in range(12)]
    assert asked == sorted(f"number {n}" for n in range(6, 12))
