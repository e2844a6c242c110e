"""``simulate`` and ``stress``: trying numbers before they bite anybody."""

from __future__ import annotations

from pathlib import Path

import click

from ..pricing import Price
from .books import groups
from .buckets import number
from .frame import NO, Answer, answers
from .output import total
from .setup import Setup


@click.command()
@click.argument("log", required=False)
@click.option(
    "--policy",
    type=click.Path(dir_okay=False, path_type=Path),
    help="the file whose limits are tried (default: the configuration)",
)
@click.option("--by", callback=groups, default="user", show_default=True)
@click.option("--tz", default="UTC", show_default=True, help="time zone of --by day and hour")
@click.option("--most", type=click.IntRange(1), default=20, show_default=True, help="lines shown")
@click.option("--strict", is_flag=True, help="exit with 1 if a call that was served is refused")
@click.pass_obj
@answers
def simulate(
    setup: Setup,
    log: str | None,
    policy: Path | None,
    by: tuple[str, ...],
    tz: str,
    most: int,
    strict: bool,
) -> Answer:
    """Replay recorded usage under a policy: who would be refused, downgraded or delayed, and what
    it would cost.

    LOG is a journal (usage.jsonl, sqlite:///usage.db) or a file of JSON lines with time, user,
    model, input_tokens and output_tokens; without one, the configured journal.
    """
    source = log or setup.books().journal
    tried = setup if policy is None else Setup(policy, None, setup.context)
    assert source is not None
    found = tried.policy().simulate(source)
    head, lines, last = found.table(by, tz=tz)
    if len(lines) > most:
        lines[most:] = [[f"{len(lines) - most:,} more", *[""] * (len(head) - 1)]]
    code = NO if strict and found.turned_away else 0
    shown = (total((head, lines, last), len(by)), found.summary())
    return Answer(found.as_dict(by, tz=tz), shown, code)


@click.command()
@click.option("--quota", callback=number, default="500", show_default=True, help="tokens a day")
@click.option(
    "-p",
    "--prompt",
    "prompts",
    type=int,
    multiple=True,
    default=(600, 300, 300),
    show_default=True,
    help="tokens of a prompt; may be given again and again",
)
@click.option("--answer", type=int, default=100, show_default=True, help="tokens of an answer")
@click.option("--users", type=int, default=1000, show_default=True, help="such users a day")
@click.option("--model", default="gpt-4o", show_default=True)
@click.option("--input-price", type=float, help="dollars per million (default: genai-prices)")
@click.option("--output-price", type=float, help="dollars per million")
@answers
def stress(
    quota: float,
    prompts: tuple[int, ...],
    answer: int,
    users: int,
    model: str,
    input_price: float | None,
    output_price: float | None,
) -> Answer:
    """Send prompts against a quota, to a provider on this machine, and say what it saves to block
    so many users a day. It costs nothing.
    """
    from ..stress import stress_test

    if (input_price is None) != (output_price is None):
        raise click.UsageError("--input-price and --output-price go together.")
    price = None
    if input_price is not None and output_price is not None:
        price = Price(input_price, output_price)  # type: ignore[arg-type]  # it makes Decimals
    found = stress_test(quota, prompts, answer=answer, users=users, model=model, price=price)
    return Answer(found.as_dict(), [str(found)])
