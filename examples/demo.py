"""`make demo`: every example in this folder, one after another, with a word on each.

No key is needed and nothing leaves this machine. It ends with an error if an example does not show
what is said of it here.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import textwrap
from typing import NamedTuple

# Count tokens with the tables that are installed here; tiktoken would download its own.
os.environ.setdefault("QUOTAGUARD_TOKENIZER", "fast")


WIDTH = 96


class Part(NamedTuple):
    """An example, what to say about it, and what it must show."""

    example: str
    title: str
    before: str
    after: str
    shows: tuple[str, ...]


PARTS = (
    Part(
        "quota_stress_test",
        "A quota of 500 tokens",
        "We send three prompts. The tokens of each are counted before it is sent, and taken from "
        "alice's quota.",
        "600 can never fit into 500, so that is told at once. 300 fit once. What is refused "
        "raises the error that the SDK raises for a rate limit, and is never sent.",
        ("600 tokens is blocked", "300 tokens passes", "300 tokens is blocked", "saw 1 request"),
    ),
    Part(
        "refilling_bucket",
        "A bucket that refills",
        "A limit by the second, minute or hour is a bucket: it refills all the time, up to the "
        "brim.",
        "The time to come back is computed, not guessed. An answer that is longer than foreseen "
        "is paid for by the next calls: nothing is lost, and nothing is for free.",
        (
            "begins full: 10,000",
            ": 0 are left",
            "Refused: come back in",
            "stands at -",
            "full: 10,000.",
        ),
    ),
    Part(
        "downgrade",
        "A smaller model instead",
        "Pro users have little room for the large model and much for the small one.",
        "Whether the small one has room is decided in the same step that takes the tokens, so two "
        "callers cannot both be promised the last ones. The receipt says who answered, and why.",
        ("served by gpt-4o.", "served by gpt-4o-mini because of", "later:\n", "served by gpt-4o."),
    ),
    Part(
        "waiting",
        "Standing in line",
        "A batch job would rather wait than fail.",
        "First come, first served. A wait that would be longer than allowed is refused at once, "
        "and whatever is given back ends a wait early.",
        ("second call waited 4", "refused at once", "stands in line", "waited 0.0 s"),
    ),
    Part(
        "batch_job",
        "A batch job",
        "Thirty prompts, as fast as the limits allow and no faster.",
        "Its calls stand in line whatever the tier says; what the provider refuses comes again. "
        "Each finished item is noted in a file, so a job that was killed goes on where it was.",
        ("30 answers", "31 requests", "it took 2", "has all 30 results", "Together 30"),
    ),
    Part(
        "streaming",
        "Streams, and how they end",
        "The cost of a stream is known when it ends. Not all of them end well.",
        "However a stream ends, it is charged once, and what it had reserved goes back.",
        ("charged 52, as the provider reported", "leaves after 5", "cut off", "any of them: 0."),
    ),
    Part(
        "decorated",
        "The decorator",
        "Functions that call an LLM in their own way can have a quota too.",
        "The function does not run if there is no room. What it used comes from its lease, from "
        "what it returns, or from the guarded clients that it uses: never from two of them.",
        ("alice: charged 5", "Refused before it runs", "charged 11", "carol, 3", "dave, 84"),
    ),
    Part(
        "anthropic_client",
        "Anthropic",
        "The other SDK, the same guard: a quota can span both.",
        "The error carries a real response with status 429 and Retry-After, so what you wrote for "
        "the provider's own limits works for yours.",
        ("Anthropic: True", "used 100; 150 of 250", "status 429", "too: True"),
    ),
    Part(
        "tiers_and_users",
        "Tiers, users, organisations",
        "A web server has one client and many users.",
        "All limits of a call are checked and taken together, or none is: when acme's bucket is "
        "empty, dave's own is not touched.",
        (
            "alice, gpt-4o-mini: yes",
            "alice, gpt-4o-mini: no",
            "org acme has 0",
            "umbrella, gpt-4o: yes",
        ),
    ),
    Part(
        "three_tiers",
        "Free, Pro, Enterprise",
        "Access follows what is paid: small models only, expert models as long as the quota lasts, "
        "and terms of an organisation's own.",
        "Pro is not cut off at the limit but served by the small model, and is back on the expert "
        "one the next day. New terms hold without a restart.",
        (
            "not part of tier 'free'",
            "limit of 10k tokens/day",
            "call 32: gpt-4o-mini because of 500k tokens/day for gpt-4o",
            "no: the limit of 30k tokens/day per org",
            "agreed on more: gpt-4o",
            "gpt-4o-mini / gpt-4o",
        ),
    ),
    Part(
        "custom_provider",
        "Any other provider",
        "No SDK is needed: reserve around a block, and say what it used.",
        "The same limits, fallbacks and refusals, for whatever can be counted.",
        ("house-large answered", "house-small answered", "nothing was sent"),
    ),
    Part(
        "many_processes",
        "Many processes, one quota",
        "Four processes race for the tokens of one user, over a ledger that they share.",
        "Not one call too many, and none too few. What a killed process held comes back by itself, "
        "when its lease ends.",
        ("ledger is a", "100 in all, 1,000 tokens", "holds 300", "900 are left"),
    ),
    Part(
        "fastapi_app",
        "A web server",
        "POST /v1/chat for everybody, by FastAPI: users are known by their keys, and each has a "
        "quota.",
        "A refusal is a response that says when to come back. Each answer says what is left, and "
        "which model gave it if it was another.",
        ("200 OK", "r=300", "429", "Retry-After", "403", 'Served-Model: "gpt-4o-mini"', "401"),
    ),
    Part(
        "dashboard_app",
        "A dashboard",
        "Who used what, what is left, what limits refused and saved: pages for operators, mounted "
        "in an app.",
        "It is closed to whoever is no admin, and a form from elsewhere changes nothing. What an "
        "admin gave stands in the user's story.",
        (
            "Without a name: 401",
            "Saved by limits",
            "shown as text: True",
            "Granted: 4k tokens/day got 1,000",
            "adjusted by operator",
            "token: 403",
        ),
    ),
    Part(
        "testing_your_app",
        "Testing your own quotas",
        "These are tests as your app would have them, against a provider on this machine.",
        "The provider speaks real HTTP and can be slow, wrong or gone; the clock moves when told.",
        ("too quick", "whatever the provider says", "a crowd gets no more", "without quotas"),
    ),
)


def main() -> int:
    """Run all parts; the number of those that did not show what they should."""
    wrong = [part.example for number, part in enumerate(PARTS, 1) if not run(number, part)]
    if wrong:
        print(f"Something else was to be seen: {', '.join(wrong)}.")
    else:
        print(f"All {len(PARTS)} parts showed what they say. Each is a file in examples/.")
    return len(wrong)


def run(number: int, part: Part) -> bool:
    """Print what an example shows, between what we say of it; whether it showed that."""
    print(bold(f"{number}. {part.title}") + f"   examples/{part.example}.py")
    print(textwrap.fill(part.before, WIDTH), end="\n\n")
    output = io.StringIO()
    failure: Exception | None = None
    try:
        with contextlib.redirect_stdout(output):
            importlib.import_module(part.example).main()
    except Exception as error:  # noqa: BLE001  # the parts behind it are worth seeing
        failure = error
    shown = output.getvalue()
    print("\n".join(map(wrapped, shown.splitlines())), end="\n\n")
    if failure is not None:
        print(f"It failed: {type(failure).__name__}: {failure}\n")
        return False
    missing = first_missing(part.shows, shown)
    if missing is not None:
        print(f"It was to show {missing!r} here, and did not.\n")
        return False
    print(textwrap.fill(part.after, WIDTH), end="\n\n\n")
    return True


def first_missing(phrases: tuple[str, ...], text: str) -> str | None:
    """The first of some phrases that does not stand in a text, in their order."""
    at = 0
    for phrase in phrases:
        found = text.find(phrase, at)
        if found < 0:
            return phrase
        at = found + len(phrase)
    return None


def wrapped(line: str) -> str:
    """A line of an example's output, indented, no wider than a terminal."""
    indent = "    " + " " * (len(line) - len(line.lstrip()))
    return textwrap.fill(
        line,
        WIDTH,
        initial_indent="    ",
        subsequent_indent=indent + "  ",
        break_on_hyphens=False,
    )


def bold(text: str) -> str:
    """Bold on a terminal, plain in a file or a log."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        return f"\033[1m{text}\033[0m"
    return text


if __name__ == "__main__":
    sys.exit(main())
