"""What a guard estimates before a call, and learns after it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI

from quotaguard import ConfigurationError, Guard, Identity, Price, QuotaExceeded, Usage, receipt
from quotaguard.core.lease import Demand
from quotaguard.counting import bound_request, count_request, encodings, explain_request
from quotaguard.estimator import Estimator, is_large
from quotaguard.testing import FakeClock, FakeProvider, Reply

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "How full is my bucket?"}]}
USED = Usage(1, 20, 300)


def demand(estimator: Estimator, body: dict[str, Any] = BODY, **asked: Any) -> Demand:
    """What alice's call is estimated to use."""
    asked = {"model": body["model"], "user": "alice", "most": 1e6} | asked
    return estimator.demand("chat", body, **asked)


def taught(estimator: Estimator, answers: int, used: Usage = USED) -> Estimator:
    """The estimator after that many answers."""
    for _ in range(answers):
        estimator.learn("alice", "gpt-4o", demand(estimator), used)
    return estimator


def test_a_stated_maximum_is_reserved_and_hard() -> None:
    """The caller said it, so it has to be there."""
    found = demand(Estimator("max", 512), {**BODY, "max_tokens": 40, "n": 2})
    assert (found.output_tokens, found.hard) == (80, True)


def test_without_a_maximum_a_guess_is_reserved_and_soft() -> None:
    """A guess alone never refuses a call."""
    found = demand(Estimator("max", 77))
    assert (found.output_tokens, found.hard) == (77, False)


def test_answers_teach_what_to_reserve() -> None:
    """After enough answers the guess is what this user and model really used."""
    found = demand(taught(Estimator("max", 77), 40))
    assert 300 <= found.output_tokens <= 330
    assert not found.hard


def test_several_answers_teach_the_length_of_one() -> None:
    """A request for four answers reserves four times what one has shown to take."""
    estimator = Estimator("max", 77)
    four = {**BODY, "n": 4}
    for _ in range(40):
        estimator.learn("alice", "gpt-4o", demand(estimator, four), Usage(1, 20, 1200))
    assert 300 <= demand(estimator).output_tokens <= 330
    assert 1200 <= demand(estimator, four).output_tokens <= 1320


def test_a_new_user_is_served_by_what_the_model_showed() -> None:
    """Until there is enough of one's own, the model's answers count."""
    assert 300 <= demand(taught(Estimator("max", 77), 40), user="bob").output_tokens <= 330


def test_learned_goes_before_a_larger_maximum_by_choice() -> None:
    """``reserve_output="learned"`` does not hold back what is hardly ever used."""
    found = demand(taught(Estimator("learned", 77), 40), {**BODY, "max_tokens": 4000})
    assert 300 <= found.output_tokens <= 330
    assert not found.hard


@pytest.mark.parametrize("fixed", [64, lambda endpoint, body: 64], ids=["number", "callable"])
def test_the_output_can_be_fixed(fixed: Any) -> None:
    """A number, or a callable of endpoint and body, says it outright."""
    assert demand(Estimator(fixed, 512)).output_tokens == 64
    assert demand(Estimator(fixed, 512), {**BODY, "max_tokens": 10}).output_tokens == 10


@pytest.mark.parametrize("odd", [None, -5, float("nan"), "64", True])
def test_a_callable_that_gives_no_number_leaves_it_as_it_is_by_default(odd: Any) -> None:
    """It may have no answer for some requests; a reservation below nothing would be a gift."""
    estimator = Estimator(lambda endpoint, body: odd, 512)
    assert demand(estimator).output_tokens == 512
    assert demand(estimator, {**BODY, "max_tokens": 10}).output_tokens == 10


@pytest.mark.parametrize("wrong", ["most", -1, True, 1.5, None])
def test_a_wrong_choice_is_named(wrong: Any) -> None:
    """The error names the value and what would be right."""
    with pytest.raises(ConfigurationError, match="reserve_output is 'max', 'learned'"):
        Guard(reserve_output=wrong)


def test_bills_correct_the_count() -> None:
    """A model that is always billed above its count is estimated higher, and shown to be."""
    estimator = Estimator("max", 512)
    body = {**BODY, "model": "claude-sonnet-4-5"}
    counted = count_request("messages", body)
    for _ in range(80):
        found = estimator.demand("messages", body, model=body["model"], user=None, most=1e6)
        estimator.learn(None, str(body["model"]), found, Usage(1, round(counted * 1.5), 5))
    corrected = estimator.demand("messages", body, model=body["model"], user=None, most=1e6)
    assert 1.3 * counted <= corrected.input_tokens <= 1.6 * counted
    assert corrected.counted == counted
    assert any(factor.factor > 1.3 for factor in estimator.calibration())


def test_calibration_can_be_switched_off() -> None:
    """Who wants the plain count gets it, from what others have seen of the model too."""
    estimator = Estimator("max", 512, calibrate=False)
    for _ in range(30):
        estimator.learn("alice", "gpt-4o", demand(estimator), Usage(1, 200, 300))

    assert demand(estimator).input_tokens == count_request("chat", BODY)
    assert estimator.calibration() == []
    assert demand(estimator).output_tokens >= 300  # what answers take is no correction
    assert len(estimator.pools) == 1
    assert Guard(calibrate=False).calibration() == []


def test_without_limits_on_tokens_nothing_is_counted() -> None:
    """A bound does where no limit depends on the count."""
    assert demand(Estimator("max", 9), most=None).input_tokens == bound_request("chat", BODY)


def test_counting_stops_where_the_call_is_refused_anyway() -> None:
    """A huge prompt is counted only until it is past the limit."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "word " * 400_000}]}
    found = demand(Estimator("max", 9), body, most=1000)
    assert 1000 < found.input_tokens < 100_000


def test_large_bodies_are_told_from_small_ones() -> None:
    """Text anywhere in the body counts, whatever its shape."""
    assert not is_large(BODY)
    assert is_large({"messages": [{"role": "user", "content": [{"text": "x" * 60_000}]}]})
    assert is_large({"input": list(range(60_000))})


def test_a_schema_of_many_references_is_large() -> None:
    """A few kilobytes that refer to one another are shown to the model as very many."""
    names = [f"part{n}" for n in range(12)]
    parts = {
        name: {"type": "object", "properties": {a: {"$ref": f"#/$defs/{a}"} for a in names}}
        for name in names
    }
    tool = {"name": "f", "parameters": {"$ref": "#/$defs/part0", "$defs": parts}}
    assert is_large({**BODY, "tools": [{"type": "function", "function": tool}]})


def test_estimate_says_what_the_estimate_is_made_of() -> None:
    """The guard explains a request without sending or reserving anything."""
    guard = Guard(limits=["10k tokens/day"], anonymous="me", clock=FakeClock())
    found = guard.estimate("chat", {**BODY, "max_tokens": 40})
    assert found.parts.messages == found.parts.total == found.input_tokens
    assert (found.output_tokens, found.output_hard, found.factor) == (40, True, 1.0)
    assert guard.peek()[0].left == 10_000


def test_estimate_says_what_a_request_costs() -> None:
    """Its input as counted and the answer as reserved; nothing where nobody knows a price."""
    prices = {"gpt-4o": Price(input=2, output=10)}
    guard = Guard(prices=prices)
    body = {**BODY, "max_tokens": 1_000}
    found = guard.estimate("chat", body)

    assert found.usd == Decimal(2 * found.input_tokens + 10 * 1_000) / 1_000_000
    assert guard.estimate("chat", {**body, "model": "nobody-knows-it"}).usd is None


@pytest.mark.parametrize("model", [None, 7, b"gpt-4o", ["gpt-4o"], {"a": 1}, object()])
def test_estimate_takes_any_model_for_the_newest_where_it_is_no_name(model: Any) -> None:
    """A body that a program put together wrongly is estimated, not met with a puzzle."""
    newest = {**BODY, "model": "gpt-5.6"}
    assert Guard().estimate("chat", {**BODY, "model": model}).input_tokens == count_request(
        "chat", newest
    )


def test_estimate_says_what_is_no_request() -> None:
    """The error names what would be right."""
    with pytest.raises(TypeError, match="must be a mapping"):
        Guard().estimate("chat", "hello")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="endpoint must be one of"):
        Guard().estimate("talk", BODY)


def test_estimate_counts_a_large_request_in_full() -> None:
    """It does not stop where a call would be refused: nobody asked for admission."""
    guard = Guard(limits=["1000 tokens/day"], anonymous="me", clock=FakeClock())
    body = {**BODY, "messages": [{"role": "user", "content": "word " * 20_000}]}
    assert guard.estimate("chat", body).input_tokens == count_request("chat", body) > 20_000


def test_a_limit_that_does_not_apply_does_not_stop_the_count() -> None:
    """Who has no organisation is counted in full, whatever organisations may hold."""
    guard = Guard(limits=["1000 tokens/day per org", "1M tokens/day"], clock=FakeClock())
    alone, member = Identity("alice"), Identity("alice", "acme")
    assert guard.rules.most_input(guard.rules.tier(None), alone, "gpt-4o") == 1_000_000
    assert guard.rules.most_input(guard.rules.tier(None), member, "gpt-4o") == 1000


def test_when_close_reserves_a_bound_while_it_fits() -> None:
    """Far from the limit a call costs no tokenizer; close to it, it is counted and still fits."""
    clock = FakeClock()
    tokens = count_request("chat", BODY)
    bound = bound_request("chat", BODY)
    with FakeProvider(reply=Reply(input_tokens=tokens, output_tokens=5)) as provider:
        guard = Guard(
            limits=["1000 tokens/day"],
            clock=clock,
            anonymous="me",
            count="when_close",
            reserve_output=0,
        )
        client = guard.wrap(OpenAI(base_url=provider.openai_url, api_key="k"))
        far = client.chat.completions.create(**BODY)  # type: ignore[call-overload]
        assert receipt(far).reserved.input_tokens == bound
        with guard.hold(input_tokens=1000 - (tokens + 5) - tokens - 1, output_tokens=0):
            pass  # charged as reserved
        close = client.chat.completions.create(**BODY)  # type: ignore[call-overload]
        assert receipt(close).reserved.input_tokens == tokens


@pytest.mark.anyio
async def test_an_event_loop_goes_on_while_a_tokenizer_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A download may hang for seconds at the first call; other tasks are not to pay for that."""
    asked, release = threading.Event(), threading.Event()

    def slow(encoding: str) -> Callable[[str], int]:
        asked.set()
        assert release.wait(20)
        return len

    loaders: dict[encodings.EngineName, encodings.Loader] = {"tiktoken": slow}
    slow_engines = encodings.Engines(load_seconds=20, loaders=loaders)
    monkeypatch.setattr(encodings, "_engines", slow_engines)
    with FakeProvider(reply=Reply(input_tokens=12, output_tokens=5)) as provider:
        guard = Guard(limits=["100k tokens/day"], anonymous="me", clock=FakeClock())
        client = guard.wrap(AsyncOpenAI(base_url=provider.openai_url, api_key="k"))
        ask = client.chat.completions.create
        calls = [asyncio.create_task(ask(**BODY)) for _ in range(2)]  # type: ignore[call-overload]
        assert await asyncio.to_thread(asked.wait, 20)
        release.set()  # were the loop held up, nobody would
        answers = await asyncio.gather(*calls)
        await client.close()
    assert all(receipt(answer).used.input_tokens == 12 for answer in answers)


@pytest.mark.anyio
@pytest.mark.parametrize("limit", ["8k tokens/day", "10M tokens/day"])
async def test_an_event_loop_counts_no_large_body(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """Whether it is refused or goes through, another thread has counted it, once."""
    threads: list[int] = []

    def explain(*args: Any, **kwargs: Any) -> Any:
        threads.append(threading.get_ident())
        return explain_request(*args, **kwargs)

    monkeypatch.setattr("quotaguard.estimator.explain_request", explain)
    body = {**BODY, "messages": [{"role": "user", "content": "Tell me of buckets. " * 20_000}]}
    with FakeProvider(reply=Reply(input_tokens=12, output_tokens=5)) as provider:
        guard = Guard(limits=[limit], anonymous="me", clock=FakeClock())
        client = guard.wrap(AsyncOpenAI(base_url=provider.openai_url, api_key="k"))
        with suppress(QuotaExceeded):
            await client.chat.completions.create(**body)
        await client.close()
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


def test_what_comes_back_from_a_provider_is_learned() -> None:
    """Through a real client: the next reservation is what the answers before it used."""
    with FakeProvider(reply=Reply(input_tokens=12, output_tokens=90)) as provider:
        guard = Guard(limits=["100k tokens/day"], anonymous="me", clock=FakeClock())
        client = guard.wrap(OpenAI(base_url=provider.openai_url, api_key="k"))
        for _ in range(25):
            answer = client.chat.completions.create(**BODY)  # type: ignore[call-overload]
    assert 90 <= receipt(answer).reserved.output_tokens <= 100


def test_a_refusal_by_the_bound_of_a_huge_prompt_is_quick_to_say_why() -> None:
    """The refusal names the limit although the prompt was not counted to its end."""
    guard = Guard(limits=["1000 tokens/day"], anonymous="me", clock=FakeClock())
    client = guard.wrap(OpenAI(base_url="http://127.0.0.1:9", api_key="k", max_retries=0))
    with pytest.raises(QuotaExceeded, match="1k tokens/day"):
        client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": " " * 1_000_000 + "x" * 200_000}]
        )
