"""Counting tokens: beside tiktoken by itself and litellm, and against prompts made to be slow.

    python -m benchmarks.counting [--rounds N]

litellm takes part where it is installed. tiktoken needs its tables: without a network point
TIKTOKEN_CACHE_DIR at them. What is compared runs in turn in one process; ratios are what to read.

Targets (the issue's): a limit check under 20 µs for a prompt of 10 kB far from the limit, and of a
few milliseconds for a hostile megabyte.
"""

from __future__ import annotations

import argparse
import os
import random
import string
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from benchmarks.rounds import Timing, compare
from quotaguard.counting import bound_request, count_request, count_text, engine, use_engine
from quotaguard.counting.tokens import memo

TURNS = 200
PROSE = (
    "A token bucket refills all the time, so whoever empties it can go on a moment later; a window "
    "is filled up at midnight. Which of them fits depends on what people were promised. "
)
LIMIT = 8_000
"""Tokens that a limit check of a hostile prompt has room for."""


def conversation() -> list[dict[str, str]]:
    """Messages of a few hundred to two thousand characters, each unlike the others."""
    chance = random.Random(1)
    return [
        {
            "role": "user" if turn % 2 == 0 else "assistant",
            "content": f"{turn}: " + PROSE * chance.randint(2, 11),
        }
        for turn in range(TURNS)
    ]


def body(content: str, model: str = "gpt-4o") -> dict[str, Any]:
    """A request of one message."""
    return {"model": model, "messages": [{"role": "user", "content": content}]}


def table(subjects: Mapping[str, Timing], against: str, unit: float, name: str) -> None:
    """Print timings, and how many times quicker each is than one of them."""
    reference = subjects[against].wall
    for subject, timing in subjects.items():
        print(f"{subject:46s} {timing.wall / unit:9.2f} {name}   x {reference / timing.wall:7.1f}")


def naive() -> Callable[[list[dict[str, str]]], int] | None:
    """What most programs do: every message through tiktoken, every time."""
    import tiktoken

    try:
        encode = tiktoken.get_encoding("o200k_base").encode_ordinary
    except Exception as error:  # noqa: BLE001  a download may fail in any way
        print(f"tiktoken by itself takes no part: {type(error).__name__} ({error!s:.60})")
        return None
    return lambda messages: 3 + sum(4 + len(encode(m["content"])) for m in messages)


def recounts(rounds: int) -> None:
    """A conversation of 200 turns, counted at each of them."""
    messages = conversation()
    counters: dict[str, Callable[[list[dict[str, str]]], Any]] = {
        "quotaguard": lambda m: count_request("chat", {"model": "gpt-4o", "messages": m}),
        "quotaguard, the bound": lambda m: bound_request(
            "chat", {"model": "gpt-4o", "messages": m}
        ),
    }
    plain = naive()
    if plain is not None:
        counters["tiktoken, every message anew"] = plain
    if find_spec("litellm"):
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network
        import litellm

        counters["litellm.token_counter"] = lambda m: litellm.token_counter("gpt-4o", messages=m)

    def at_each_turn(count: Callable[[list[dict[str, str]]], Any]) -> None:
        memo.clear()
        for turn in range(1, TURNS + 1):
            count(messages[:turn])

    found = compare(
        {name: lambda count=count: at_each_turn(count) for name, count in counters.items()},  # type: ignore[misc]
        rounds=rounds,
        each=1,
    )
    against = "tiktoken, every message anew" if plain is not None else "quotaguard"
    print(f"\n{TURNS} turns counted at each turn (nothing remembered at the first)")
    table(found, against, TURNS * 1e-3, "ms/turn")
    for name, count in counters.items():
        print(f"{name:46s} {count(messages):9d} tokens at the last turn")


def long_prompt(rounds: int) -> None:
    """A prompt of about 128k tokens, no part of it like another."""
    prompt = body("".join(f"{n}: {PROSE}" for n in range(3_000)))

    def first() -> None:
        memo.clear()
        count_request("chat", prompt)

    found = compare(
        {
            "quotaguard, the first time": first,
            "quotaguard, again": lambda: count_request("chat", prompt),
            f"quotaguard, until it passes {LIMIT}": lambda: (
                memo.clear(),
                count_request("chat", prompt, stop_after=LIMIT),
            ),
            "quotaguard, the bound": lambda: bound_request("chat", prompt),
        },
        rounds=rounds,
        each=3,
    )
    print(f"\na prompt of {count_request('chat', prompt)} tokens")
    table(found, "quotaguard, the first time", 1e-3, "ms     ")


def far_from_the_limit(rounds: int) -> None:
    """What the check costs when the bound says that there is room."""
    text = (PROSE * 60)[:10_000]
    ten = [
        {"role": "user", "content": text[start : start + 1_000]}
        for start in range(0, 10_000, 1_000)
    ]
    weather = {
        "name": "weather",
        "description": "The weather of a place, now or on a day.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string", "description": "A town"}},
        },
    }
    tool = {"type": "function", "function": weather}
    bodies = {
        "10 kB in one message": ("chat", body(text)),
        "10 kB in ten messages": ("chat", {"model": "gpt-4o", "messages": ten}),
        "10 kB, not all ASCII": ("chat", body("é" + text)),
        "10 kB and five tools": ("chat", {**body(text), "tools": [tool] * 5}),
        "10 kB to Claude": ("messages", body(text, "claude-sonnet-4-5")),
    }
    found = compare(
        {
            name: lambda endpoint=endpoint, request=request: bound_request(endpoint, request)  # type: ignore[misc]
            for name, (endpoint, request) in bodies.items()
        },
        rounds=rounds,
        each=300,
    )
    print("\nthe bound alone (target: under 20 µs for 10 kB)")
    table(found, "10 kB in one message", 1e-6, "µs     ")


def hostile() -> dict[str, str]:
    """Megabytes that a careless counter chokes on."""
    chance = random.Random(1)
    million = 1_000_000
    return {
        "spaces": " " * million,
        "newlines": "\n" * million,
        "one letter": "a" * million,
        "random letters": "".join(chance.choices(string.ascii_lowercase, k=million)),
        "digits": "".join(chance.choices(string.digits, k=million)),
        "base64": "".join(chance.choices(string.ascii_letters + string.digits + "+/", k=million)),
        "random Unicode": "".join(chr(chance.randrange(0x20, 0xD7FF)) for _ in range(million // 3)),
    }


def worst_cases() -> None:
    """One limit check each, and a full count; the best of three."""

    def best(work: Callable[[], object]) -> float:
        times = []
        for _ in range(3):
            memo.clear()
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
        return 1e3 * min(times)

    print(f"\nhostile megabytes{'':18s} bound   check against {LIMIT} tokens     in full")
    for name, text in hostile().items():
        prompt = body(text)
        bound = best(lambda: bound_request("chat", prompt))  # noqa: B023  run at once
        check = best(lambda: count_request("chat", prompt, stop_after=LIMIT))  # noqa: B023
        full = best(lambda: count_text(text))  # noqa: B023
        print(f"{name:30s} {bound:7.2f} ms {check:22.2f} ms {full:13.1f} ms")


def main() -> None:
    """Run them all, with each engine that is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    for choice in ("tiktoken", "fast"):
        use_engine(choice)  # type: ignore[arg-type]
        status = engine()
        print(f"\n--- {choice}: {status.name}, {status.reason}")
        if status.exact:
            recounts(rounds)
            long_prompt(rounds)
            worst_cases()
    far_from_the_limit(rounds)


if __name__ == "__main__":
    main()
