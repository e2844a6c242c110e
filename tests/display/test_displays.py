"""Guards, receipts and reports as notebooks and terminals show them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter

from quotaguard import Fallback, Guard, Price, QuotaExceeded, Receipt, Tier, Wait, acting_as
from quotaguard.backends.memory import MemoryBackend
from quotaguard.core.ops import Op
from quotaguard.display import page
from quotaguard.errors import BackendError
from quotaguard.receipts import of
from quotaguard.testing import FakeClock

HOSTILE = "<img src=x onerror=alert(1)>\u202e\n"
PRICES = {"large": Price(input=10, output=30), "small": Price(input=1, output=3)}


class Markup(HTMLParser):
    """What stands in HTML; `close` says whether every element was closed."""

    _VOID = ("rect", "line")  # written <rect/>

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.said = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag not in self._VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """It ends."""
        if tag not in self._VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        """What is said in it."""
        self.said += f"{data} " if self._open[-1] != "style" else ""


def guard_with(clock: FakeClock | None = None, **more: Any) -> Guard:
    """A guard with two models and a journal."""
    return Guard(
        tiers=[
            Tier(
                "pro",
                limits=["1000 tokens/day for large", "$1/day"],
                when_exceeded=[Fallback("small"), Wait(3)],
            )
        ],
        prices=PRICES,
        journal="memory://",
        clock=clock or FakeClock(),
        **more,
    )


def call(guard: Guard, user: str, model: str = "large") -> Receipt:
    """One call of 700 tokens; its receipt."""
    with guard.hold(user=user, model=model, input_tokens=600, output_tokens=200) as lease:
        lease.record(input_tokens=600, output_tokens=100)
    return of(lease)


def html(shown: Any) -> str:
    """What a notebook gets."""
    return str(shown._repr_html_())


def text(shown: Any) -> str:
    """What IPython's terminal prints."""
    return str(DisplayFormatter().format(shown)[0]["text/plain"])


def everything() -> Iterator[Any]:
    """One of each, all with a hostile user."""
    guard = guard_with()
    yield call(guard, HOSTILE)
    yield call(guard, HOSTILE)
    yield guard.report("day")
    yield guard.report("day", by=("hour", "user"))
    yield guard.report("all", by=())
    yield guard_with(anonymous=HOSTILE)
    yield Guard(limits=["5 requests/minute per global"], mode="observe")
    yield Guard()


def test_what_is_shown_is_sound_and_harmless() -> None:
    """Whatever a user is called, a page shows it as text: no element, no attribute of theirs."""
    ours = {"div", "style", "span", "b", "i", "svg", "g", "title", "rect", "line", "text"}
    ours |= {"table", "thead", "tbody", "tfoot", "tr", "th", "td"}
    for shown in everything():
        found = Markup(html(shown))
        assert set(found.tags) <= ours
        assert not {each for each in found.attributes if each.startswith("on")}
        assert not {"href", "src"} & set(found.attributes)
        assert "\u202e" not in found.said
        assert "\u202e" not in text(shown)


def test_a_receipt_says_what_happened() -> None:
    """Who, which model and why, what it cost and saved, and what is left."""
    guard = guard_with()
    call(guard, "alice")
    receipt = call(guard, "alice")
    for said in (text(receipt), Markup(html(receipt)).said):
        assert "Receipt of alice, small, tier pro" in said
        assert "instead of large: no room in 1k tokens/day for large" in said
        assert "$0.0009" in said
        assert "$0.0081" in said
        assert "$0.9901 of $1.00 left" in said


def test_a_receipt_of_a_call_that_runs_says_so() -> None:
    """A stream's cost is not known before its end, and must not look like one."""
    guard = guard_with()
    with guard.hold(user="alice", model="large", input_tokens=600) as lease:
        assert "still running" in text(of(lease))
        assert re.search(r"\bcost \?", text(of(lease)))
    assert "charged as reserved: nobody can tell what it used" in text(of(lease))


def test_an_observing_guards_receipt_says_what_would_have_been() -> None:
    """It is what an observing guard is for."""
    guard = Guard(limits=["100 tokens/day"], mode="observe", clock=FakeClock())
    assert "would have been refused: the guard only observes" in text(call(guard, "alice"))


def test_a_guard_shows_the_levels_of_who_acts() -> None:
    """Its tiers for everybody; its levels for the one whom the block acts for."""
    guard = guard_with()
    call(guard, "alice")
    assert "no user" in text(guard)
    with acting_as("alice"):
        for said in (text(guard), Markup(html(guard)).said):
            assert "300 of 1,000 tokens left" in said
        assert "███████" in text(guard)
        assert "small instead, then wait up to 3 s" in Markup(html(guard)).said


class Away(MemoryBackend):
    """A ledger that can't be reached."""

    def execute(self, op: Op) -> Any:
        """Fail."""
        raise BackendError("the ledger is away")


def test_a_guard_whose_ledger_is_away_can_be_shown() -> None:
    """Looking at a guard is what one does then; it must not fail."""
    guard = Guard(limits=["5 tokens/day"], backend=Away(FakeClock()), anonymous="a")
    assert "the ledger is away" in text(guard)
    assert "the ledger is away" in Markup(html(guard)).said


def test_a_bucket_in_debt_is_a_full_bar() -> None:
    """A bar ends where its track does; what is held is told from what is used."""
    guard = Guard(limits=["1000 tokens/day", "0 requests/day for none"], clock=FakeClock())
    with guard.hold(user="a", input_tokens=900, output_tokens=0) as lease:
        lease.record(input_tokens=1500)
        with acting_as("a"):
            held = html(guard)
    with acting_as("a"):
        debt = html(guard)
        assert "-500 of 1,000 tokens left" in text(guard)
    assert re.findall(r"width:([\d.]+)%", held)[:2] == ["0.00", "90.00"]
    assert re.findall(r"width:([\d.]+)%", debt)[:2] == ["100.00", "0.00"]
    assert page.RED in debt


def test_a_reports_bars_are_shares_of_the_cost() -> None:
    """The dearest first, as the table has them; without prices tokens are compared."""
    guard = guard_with()
    call(guard, "alice")
    call(guard, "bob", "small")
    report = guard.report("day")
    shares = [float(each) for each in re.findall(r"width:([\d.]+)%", html(report))][::2]
    assert shares == [90.91, 9.09]
    free = Guard(journal="memory://", clock=FakeClock())
    for user in ("alice", "alice", "bob"):
        call(free, user)
    shares = [float(each) for each in re.findall(r"width:([\d.]+)%", html(free.report("day")))]
    assert shares[::2] == [66.67, 33.33]


@pytest.mark.parametrize(
    ("tz", "start", "hours"),
    [
        ("UTC", 1_767_225_600, 24),
        ("Europe/Paris", 1_774_738_800, 23),
        ("Europe/Paris", 1_792_879_200, 25),
    ],
)
def test_the_chart_of_a_day_has_all_its_hours(tz: str, start: float, hours: int) -> None:
    """A day of 23 or 25 hours, too; hours in which nothing was used have no column, but room."""
    clock = FakeClock(start + 7200)
    guard = guard_with(clock)
    call(guard, "alice")
    svg = html(guard.report("day", by="hour", tz=tz)).partition("<svg")[2].partition("</svg>")[0]
    assert svg.count("<g>") == hours
    assert svg.count(": 600 in, 100 out") == 1
    tall = [float(each) for each in re.findall(r'height="([\d.]+)" fill="#', svg)][2:]
    assert sorted(tall)[:-2] == [0.0] * (2 * hours - 2)
    assert sorted(tall)[-2:] == [18.0, 108.0]


def test_a_chart_of_days_leaves_no_gap_out() -> None:
    """A week without a call between two days with one looks like a week."""
    clock = FakeClock()
    guard = guard_with(clock)
    call(guard, "alice")
    clock.advance(7 * 86_400)
    call(guard, "alice")
    svg = html(guard.report("all", by="day"))
    assert svg.count("<g>") == 8
    assert "01 Jan: 600 in" in svg
    assert "08 Jan: 600 in" in svg


def test_a_long_report_is_cut_and_says_so() -> None:
    """A notebook with a million users' rows would not open again; the totals are of all."""
    guard = Guard(journal="memory://", clock=FakeClock(), limits=["1M tokens/day"])
    for n in range(60):
        call(guard, f"user {n:02d}")
    said = Markup(html(guard.report("day", by="user"))).said
    assert "10 more rows are in the totals" in said
    assert "42,000" not in said
    assert "36,000" in said


def test_refused_calls_are_in_the_tiles() -> None:
    """What did not happen is left out, what did is shown."""
    guard = Guard(limits=["1000 tokens/day"], journal="memory://", clock=FakeClock())
    call(guard, "alice")
    assert "refused" not in Markup(html(guard.report("day", by=()))).said
    with pytest.raises(QuotaExceeded):
        call(guard, "alice")
    assert re.search(r"\b1 +refused", Markup(html(guard.report("day", by=()))).said)
