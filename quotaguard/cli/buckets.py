"""``status``, ``grant`` and ``reset``: what buckets hold, and what operators do with them."""

from __future__ import annotations

import functools
import getpass
import math
import secrets
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import click

from ..admin import Adjustment
from ..core.ops import BucketState
from ..core.plan import whose
from ..errors import BackendError, ConfigurationError
from ..grammar import quantity
from ..guard import Guard
from ..identity import Identity
from ..metrics import METRICS
from ..wording import amount, seconds
from .frame import Answer, answers
from .output import Table
from .setup import Setup

F = TypeVar("F", bound=Callable[..., Any])


def number(_: click.Context, __: click.Parameter, value: str) -> float:
    """A number as limits have it: 5000, 5k, 1.5M."""
    try:
        return quantity(value)
    except ConfigurationError as error:
        raise click.BadParameter(f"{error}.") from error


def whom(function: F) -> F:
    """The options that say more about USER."""
    for option in (
        click.option("--tier", help="the tier whose limits are meant (default: as for calls)"),
        click.option("--org", help="the organisation in which the user is meant"),
    ):
        function = option(function)
    return function


class Hand(NamedTuple):
    """Whose buckets are meant, and who does something to them, as what."""

    who: Identity
    by: str
    id: str


def operating(function: Callable[..., Answer]) -> Callable[..., Answer]:
    """The argument and the options of what is done by hand: the function is given a `Hand`."""

    @click.argument("user")
    @whom
    @click.option("--whole-org", is_flag=True, help="USER is an organisation: what its users share")
    @click.option("--by", help="who does it, for the record (default: you)")
    @click.option("--id", "id_", help="names it: repeated with the same id it changes nothing")
    @functools.wraps(function)
    def run(
        setup: Setup,
        user: str,
        org: str | None,
        tier: str | None,
        whole_org: bool,
        by: str | None,
        id_: str | None,
        **more: Any,
    ) -> Answer:
        if whole_org and org is not None:
            raise click.UsageError("with --whole-org USER is the organisation: leave --org out.")
        who = Identity(None, user, tier) if whole_org else Identity(user, org, tier)
        by = by or f"{getpass.getuser()}@{socket.gethostname()}"
        return function(setup, Hand(who, by, id_ or secrets.token_hex(12)), **more)

    return run


@click.command()
@click.argument("user")
@whom
@click.pass_obj
@answers
def status(setup: Setup, user: str, org: str | None, tier: str | None) -> Answer:
    """What USER has left of each limit."""
    guard = setup.ledger()
    identity = guard.run(guard.caller(Identity(user, org, tier))).identity
    states = guard.peek(user=user, org=org, tier=tier, everything=True)
    lines = [["limit", "whose", "left", "of", "held", "full in"]]
    lines += [
        [
            state.limit.text,
            whose(state.owner),
            amount(state.left),
            amount(_capacity(state)),
            amount(state.held),
            seconds(state.full_in) if 0 < state.full_in < math.inf else "-",
        ]
        for state in states
    ]
    facts = {
        "user": identity.user,
        "org": identity.org,
        "tier": identity.tier,
        "limits": [_state(state) for state in states],
    }
    who = f"{user}{f' of {org}' if org else ''}, tier {identity.tier}"
    return Answer(facts, [who, Table(lines, names=2) if states else "Nothing limits this user."])


def _capacity(state: BucketState) -> float:
    return state.limit.ceiling / state.limit.scale


def _state(state: BucketState) -> dict[str, Any]:
    return {
        "limit": state.limit.text,
        "metric": state.limit.metric,
        "scope": state.limit.scope,
        "whose": whose(state.owner),
        "left": state.left,
        "capacity": _capacity(state),
        "held": state.held,
        "full_in": state.full_in if math.isfinite(state.full_in) else None,
    }


@click.command()
@click.pass_obj
@answers
@operating
@click.argument("amount_", metavar="AMOUNT", callback=number)
@click.option("--take", is_flag=True, help="take it away instead, if need be into debt")
@click.option("--metric", type=click.Choice(tuple(METRICS)), default="tokens", show_default=True)
def grant(setup: Setup, hand: Hand, amount_: float, take: bool, metric: str) -> Answer:
    """Give USER room: AMOUNT (5000, 5k, 1.5M) in each bucket of the metric, all in one step.

    No bucket gets more than makes it full.
    """
    given = -amount_ if take else amount_
    return _done(setup, hand, lambda guard, **more: guard.grant(given, metric=metric, **more))


@click.command()
@click.pass_obj
@answers
@operating
@click.option("--metric", type=click.Choice(tuple(METRICS)), help="only limits on that")
def reset(setup: Setup, hand: Hand, metric: str | None) -> Answer:
    """Make the buckets of USER full again, debts included, all in one step."""
    return _done(setup, hand, lambda guard, **more: guard.reset(metric=metric, **more))


def _done(setup: Setup, hand: Hand, adjust: Callable[..., Sequence[Adjustment]]) -> Answer:
    """Do it, and see that the record of it is kept."""
    guard = setup.ledger()
    (user, org, tier), by, id_ = hand
    done = adjust(guard, user=user, org=org, tier=tier, by=by, id=id_)
    audited = _audited(guard)
    lines = [["limit", "whose", "given", "left"]]
    lines += [
        [each.limit.text, whose(each.owner), amount(each.given), amount(each.left)] for each in done
    ]
    facts = {
        "id": id_,
        "by": by,
        "user": user,
        "org": org,
        "audited": audited,
        "changes": [
            {
                "limit": each.limit.text,
                "metric": each.limit.metric,
                "whose": whose(each.owner),
                "given": each.given,
                "left": each.left,
            }
            for each in done
        ],
    }
    kept = "it is in the journal" if audited else "no journal keeps a record"
    return Answer(facts, [Table(lines, names=2), f"By {by}, as {id_}: {kept}."])


def _audited(guard: Guard) -> bool:
    """Whether the journal has the record of it.

    Raises:
        BackendError: there is a journal, and it could not be written.
    """
    journal = guard.journal
    if journal is None:
        return False
    if not journal.flush():
        raise BackendError(f"it is done, but {journal!r} could not be written: no record of it")
    return True
