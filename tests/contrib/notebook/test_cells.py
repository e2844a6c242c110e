"""``%%quota`` on a cell: which limits its calls come under, and what is said below it."""

from __future__ import annotations

import re

import openai
import pytest
from IPython.core.error import UsageError

from quotaguard import ModelNotAllowed, QuotaExceeded, Receipt
from quotaguard.testing import FakeProvider
from tests.contrib.notebook.conftest import Notebook


def test_a_cell_says_what_it_cost(notebook: Notebook, provider: FakeProvider) -> None:
    """What is shown is what the provider reported, to the token."""
    value = notebook.run(
        '%%quota "10k tokens/day" --user alice\nask()\nask().choices[0].message.content'
    )
    assert value == "Yes."
    served = provider.served
    assert (served.input_tokens, served.output_tokens) == (600, 200)
    assert "This cell, for alice: 2 calls, 600 input tokens, 200 output tokens" in notebook.text
    assert "9,200 of 10,000 tokens left" in notebook.text
    assert "9,200 of 10,000 tokens left" in notebook.outputs[-1]["text/html"]


def test_a_cell_that_calls_nothing_says_so(notebook: Notebook) -> None:
    """No call is shown as none, not as an error, and the levels are there all the same."""
    notebook.run('%%quota "10k tokens/day" --user alice\nx = 1')
    assert "0 calls" in notebook.text
    assert "10,000 of 10,000 tokens left" in notebook.text


def test_limits_hold_for_clients_made_before(notebook: Notebook) -> None:
    """A client is made once at the top of a notebook; the cell's limits reach it."""
    notebook.run('%%quota "900 tokens/day" --user alice\nask()')
    notebook.fail('%%quota "900 tokens/day" --user alice\nask()\nask()', openai.RateLimitError)
    assert "1 call," in notebook.text
    assert "1 refused" in notebook.text
    assert "refused: user alice is over the limit of 900 tokens/day" in notebook.text


def test_limits_end_with_their_cell(notebook: Notebook, provider: FakeProvider) -> None:
    """A cell without the magic is not bound by the cell before it, nor charged to its user."""
    notebook.fail('%%quota "100 tokens/day" --user alice\nask()', QuotaExceeded)
    assert notebook.run("receipt(ask()).identity.user") == "anonymous"
    assert len(provider.requests) == 1


def test_a_refusal_is_short_and_stops_a_run_of_all_cells(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence and the cell's own lines; the error itself is the SDK's, as ever."""
    result = notebook.fail(
        '%%quota "100 tokens/day" --user alice\nx = 1\nask()', openai.RateLimitError
    )
    assert result.error_in_exec.status_code == 429
    shown = capsys.readouterr().out
    assert len(shown.strip().splitlines()) <= 5
    assert "user alice can never make this request" in shown
    assert "line 3: ask()" in shown


def test_other_errors_are_shown_in_full(
    notebook: Notebook, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only refusals are short; a bug in the cell has its traceback, with the cell's own lines."""
    notebook.fail('%%quota "10k tokens/day"\nx = 1\n1 / 0', ZeroDivisionError)
    shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert "----> 3 1 / 0" in shown
    assert "0 calls" in notebook.text


def test_a_cell_may_await(notebook: Notebook) -> None:
    """Top-level await and tasks: the cell runs as IPython runs any other."""
    calls = "import asyncio\nawait asyncio.gather(aask(), aask())"
    assert len(notebook.run(f'%%quota "10k tokens/day" --user alice\n{calls}')) == 2
    assert "for alice: 2 calls, 600 input tokens" in notebook.text
    notebook.fail('%%quota "900 tokens/day" --user alice\nawait aask()', openai.RateLimitError)


def test_threads_of_a_pool_belong_to_the_cell(notebook: Notebook) -> None:
    """A pool is how people send many prompts; its threads have no context but the cell's limits."""
    pool = "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as pool:\n"
    notebook.run(
        '%%quota "10k tokens/day" --user alice\n'
        f"{pool}    got = list(pool.map(lambda _: receipt(ask()), range(3)))"
    )
    assert "for alice: 3 calls" in notebook.text
    assert notebook.run("{each.identity.user for each in got}") == {"alice"}
    notebook.fail(
        f'%%quota "1k tokens/day" --user alice\n{pool}    list(pool.map(ask, ["gpt-4o"] * 3))',
        QuotaExceeded,
    )


def test_calls_of_other_guards_are_metered_and_told_apart(notebook: Notebook) -> None:
    """What the cell cost is all that it cost; whose limits held is said."""
    notebook.run(
        '%%quota "1 token/day" --user alice\n'
        'private = GuardedOpenAI(limits=["10k tokens/day"])\n'
        "got = receipt(private.chat.completions.create(**request()))\nprivate.close()"
    )
    assert "1 call, 300 input tokens" in notebook.text
    assert "1 call through other guards, which have their own limits" in notebook.text
    got = notebook.run("got")
    assert isinstance(got, Receipt)
    assert got.identity.user == "alice"


def test_the_model_serves_whatever_is_asked_for(notebook: Notebook, provider: FakeProvider) -> None:
    """A notebook can be run on the small model without a change to its code."""
    notebook.run('%%quota --model gpt-4o-mini\nask("gpt-4o")')
    assert provider.requests[-1].model == "gpt-4o-mini"
    assert "1 downgraded" in notebook.text
    assert "gpt-4o-mini instead of gpt-4o" in notebook.text


def test_a_fallback_serves_when_a_limit_is_full(notebook: Notebook) -> None:
    """``--fallback`` keeps a cell going where its limit is only on the large model."""
    notebook.run(
        '%%quota "900 tokens/day for gpt-4o" --user alice --fallback gpt-4o-mini\n'
        'models = [receipt(ask("gpt-4o")).served_model for _ in range(3)]'
    )
    assert notebook.run("models") == ["gpt-4o", "gpt-4o", "gpt-4o-mini"]


def test_a_call_that_waits_has_a_bar(notebook: Notebook) -> None:
    """A cell that seems to hang says what it waits for and how long, then how long it took."""
    notebook.run(
        '%%quota "100 tokens/second burst 600" --user alice --wait 60\nask()\nask()\nask()'
    )
    lines = [output["text/plain"] for output in notebook.outputs]
    assert "1 call waits in line for 100 tokens/second burst 600, about" in lines[0]
    assert "animation:qg-wait" in notebook.outputs[0]["text/html"]
    assert lines[-2].startswith("quotaguard: 2 calls waited in line,")
    assert "animation:qg-wait" not in notebook.outputs[-2]["text/html"]
    assert "2 waited" in lines[-1]


def test_an_open_stream_is_said_to_be_under_way(notebook: Notebook) -> None:
    """Its cost is not known yet, so it is not in the sums, and the reader is told."""
    notebook.run(
        '%%quota "10k tokens/day"\n'
        "stream = client.chat.completions.create(**request(), stream=True)"
    )
    assert "1 call still under way, not in the sums" in notebook.text
    notebook.run('%%quota "10k tokens/day"\nfor _ in stream: pass')
    assert "0 calls" in notebook.text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("10k bananas", "cannot read the limit"),
        ('"10k tokens/day" --bogus', "unrecognized arguments: --bogus"),
        ('"10k tokens/day" "5k tokens/day"', "limit the same thing; keep one"),
        ("--model gpt-4o*", "is a name, not 'gpt-4o*'"),
        ("--wait never", "argument --wait"),
        ("--tier gold", "unknown tier 'gold'"),
        ("--user {nobody}", "cannot evaluate '{nobody}'"),
        ('"10k tokens/day', "No closing quotation"),
    ],
)
def test_a_wrong_line_is_one_sentence_and_the_cell_does_not_run(
    notebook: Notebook, capsys: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    """Nobody wants an unmetered cell because of a typo in the limit."""
    notebook.fail(f"%%quota {line}\nask()", UsageError)
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err
    assert notebook.outputs == []
    assert notebook.run("receipt(ask()).identity.user") == "anonymous"


def test_dollars_and_braces_in_a_line(notebook: Notebook) -> None:
    """``$5`` is money, not a shell variable; ``{name}`` is the variable, and never an option."""
    notebook.run('who = "eve --user mallory"')
    notebook.run('%%quota "$5/day" --user {who}\nask()')
    assert "for eve --user mallory: 1 call" in notebook.text
    assert "$5.00 left" in notebook.text


def test_other_magics_go_along(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    """``%%time`` and ``%%capture`` work below ``%%quota`` and above it."""
    notebook.run('%%quota "10k tokens/day" --user alice\n%%time\nask()')
    assert "Wall time" in capsys.readouterr().out
    assert "for alice: 1 call" in notebook.text
    notebook.run('%%capture caught\n%%quota "10k tokens/day" --user alice\nask()')
    shown = notebook.run("caught.outputs[-1].data['text/plain']")
    assert "for alice: 1 call" in shown


def test_code_may_call_the_magic(notebook: Notebook) -> None:
    """``run_cell_magic`` is how other tools run a cell; an error reaches them."""
    call = (
        "get_ipython().run_cell_magic('quota', '\"900 tokens/day\" --user alice', 'ask()\\nask()')"
    )
    notebook.run(call)
    assert "for alice: 2 calls" in notebook.text
    notebook.fail(call, QuotaExceeded)


def test_a_cell_inside_a_cell_does_not_end_it(notebook: Notebook) -> None:
    """What runs another cell stays under its own limits, and the inner one under both."""
    notebook.run("run = get_ipython().run_cell")
    notebook.fail(
        '%%quota "900 tokens/day" --user alice\n'
        "run('%%quota \"1k requests/day\"\\nask()')\n"
        "run('ask()')\nask()",
        QuotaExceeded,
    )
    assert "900 tokens/day" in notebook.outputs[0]["text/plain"]
    assert "1k requests/day" in notebook.outputs[0]["text/plain"]
    assert "1 call, 300 input tokens" in notebook.text
    assert "1 refused" in notebook.text


def test_a_silent_run_is_not_left_without_limits(notebook: Notebook) -> None:
    """IPython does not tell of its end, so it must not begin."""
    result = notebook.shell.run_cell('%%quota "900 tokens/day"\nask()', silent=True)
    assert isinstance(result.error_in_exec, UsageError)


def test_an_interrupted_cell_ends(notebook: Notebook) -> None:
    """Whoever stops a cell has ended its limits too, and is shown what it cost so far."""
    notebook.fail(
        '%%quota "900 tokens/day" --user alice\nask()\nraise KeyboardInterrupt', KeyboardInterrupt
    )
    assert "for alice: 1 call" in notebook.text
    assert notebook.run("receipt(ask()).identity.user") == "anonymous"


def test_a_tier_without_the_model_is_not_allowed_as_ever(notebook: Notebook) -> None:
    """The cell's terms stand over the tier's; what they do not name stays."""
    from quotaguard import Tier

    notebook.guard.update(tiers=[Tier("small", limits=["5k tokens/day"], models=["gpt-4o-mini"])])
    notebook.fail('%%quota "10k tokens/day" --user alice\nask("gpt-4o")', ModelNotAllowed)
    assert "not allowed: model 'gpt-4o' is not part of tier 'small'" in notebook.text
    assert "10,000 of 10,000 tokens left" in notebook.text


def test_callers_of_a_cell_are_shown_apart(notebook: Notebook) -> None:
    """A cell that acts for many users says what is left for each."""
    notebook.run(
        '%%quota "1k tokens/day"\nfrom quotaguard import acting_as\n'
        'for who in ("alice", "bob"):\n    with acting_as(who):\n        ask()'
    )
    assert "Quotas of alice:" in notebook.text
    assert "Quotas of bob:" in notebook.text
    assert notebook.text.count("600 of 1,000 tokens left") == 2


def test_hostile_names_are_harmless(notebook: Notebook, provider: FakeProvider) -> None:
    """A user's name may come from anywhere; it is text, in the output's HTML too."""
    name = "<img src=x onerror=alert(1)>\u202e"
    notebook.shell.user_ns["name"] = name
    notebook.run('%%quota "1k tokens/day" --user {name}\nask()')
    page = notebook.outputs[-1]["text/html"]
    assert "<img" not in page
    assert "\u202e" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
