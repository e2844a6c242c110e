"""What a call is estimated to use: counted, corrected by what was billed, and learnt from answers.

Input is counted by the provider's formulas and, where those are a model and not an identity,
multiplied by a factor that calibration keeps. Output is the maximum that the request states, else
what this user and model have shown to use, else a stated guess.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from .core.lease import Cost, Demand
from .counting import (
    Calibration,
    Factor,
    LearnedOutput,
    LimitPassed,
    Parts,
    bound_request,
    explain_request,
    feature_class,
    loads,
    output_allowance,
)
from .counting.body import number
from .counting.output import answers
from .errors import ConfigurationError
from .usage import Usage

ReserveOutput: TypeAlias = (
    "Literal['max', 'learned'] | int | Callable[[str, Mapping[str, Any]], int | None]"
)
"""What is reserved for the answer: see `Estimator`."""

LARGE = 50_000
"""Bytes of text; from there on counting may take milliseconds, and is kept off an event loop."""
_REFERENCE = 5_000
"""What a reference in a schema counts there: a few of them can stand for very much."""

HANDFUL = 8
"""Answers that are learnt from together, once there were many."""


@dataclass(frozen=True, slots=True)
class Estimation:
    """An estimate and what it is made of, in tokens.

    Attributes:
        input_tokens: the input, corrected by calibration.
        output_tokens: what would be reserved for the answer.
        output_hard: whether the request states that maximum itself; else it is a guess, which alone
            refuses nothing.
        parts: the input as counted, by what it pays for.
        factor: what calibration multiplied the count by.
        hidden: tokens that calibration added to the count before, for a hidden prompt.
        usd: what input and output cost in US dollars at the standard rate; None: no price is known.
    """

    input_tokens: int
    output_tokens: int
    output_hard: bool
    parts: Parts
    factor: float
    hidden: int = 0
    usd: Decimal | None = None


class Estimator:
    """Estimates calls, and learns from what they used.

    Args:
        reserve_output: ``"max"``: the maximum that the request states; without one what was learnt.
            ``"learned"``: what was learnt, also where the request allows more. A number, or a
            callable of endpoint and body: that many tokens; what is no number from 0 on counts as
            ``"max"``. Only a stated maximum is hard.
        guess: tokens assumed for an answer of which nothing is stated or learnt.
        calibrate: whether bills correct the counts that follow.

    Raises:
        ConfigurationError: ``reserve_output`` is none of these.
    """

    def __init__(self, reserve_output: ReserveOutput, guess: int, calibrate: bool = True) -> None:
        number = isinstance(reserve_output, int) and not isinstance(reserve_output, bool)
        if not (
            reserve_output in ("max", "learned")
            or callable(reserve_output)
            or (number and reserve_output >= 0)  # type: ignore[operator]
        ):
            raise ConfigurationError(
                "reserve_output is 'max', 'learned', a number of tokens or a callable, "
                f"not {reserve_output!r}"
            )
        self.guess = guess
        self._reserve_output = reserve_output
        self._calibration = Calibration()
        self._learned = LearnedOutput()
        self._heard: deque[tuple[str | None, str | None, Demand, Usage]] = deque()
        self._taken_in = 0
        self._tables: set[str] = set()
        """Tokenizers' tables that were asked for."""
        self._calibrates = calibrate
        calibrated = (self._calibration.pool,) if calibrate else ()
        self.pools = (*calibrated, self._learned.pool)
        """What is learnt, for `quotaguard.sharing.Sharing`."""

    def may_stall(self, endpoint: str, body: Mapping[str, Any]) -> bool:
        """Whether counting a body could stall an event loop: it is large, or the first to need a
        tokenizer's table, or the table is still being loaded.
        """
        if is_large(body):
            return True
        table, loading = loads(endpoint, body)
        if loading is None:  # and is perhaps never needed, where no limit depends on tokens
            loading = table not in self._tables
            self._tables.add(table)
        return loading

    def demand(
        self,
        endpoint: str,
        body: Mapping[str, Any],
        *,
        model: str | None,
        user: str | None,
        most: float | None,
        rough: bool = False,
    ) -> Demand:
        """What a call is estimated to use of a model.

        Args:
            endpoint: as for `quotaguard.counting.count_request`.
            body: the request's JSON body, its model replaced by ``model``.
            model: the model that would serve it.
            user: whose answers to go by.
            most: input tokens beyond which the call is refused anyway, so that counting can stop;
                None: no limit depends on tokens, so that a bound does.
            rough: a bound does, since it is replaced if it does not fit.
        """
        body = _for_model(body, model)
        output, hard = self._output(endpoint, body, model, user)
        if most is None or rough:
            return Demand(bound_request(endpoint, body), output, hard)
        try:
            parts = explain_request(endpoint, body, stop_after=int(most))
        except LimitPassed as passed:
            if is_large(body):
                return Demand(passed.tokens, output, hard)
            parts = explain_request(endpoint, body)  # its refusal says how much it asked for
        counted = parts.total
        features = feature_class(endpoint, parts)
        corrected = self._calibration.apply(model or "", features, counted)
        return Demand(corrected, output, hard, counted, features, answers(endpoint, body))

    def estimate(
        self, endpoint: str, body: Mapping[str, Any], *, user: str | None, cost: Cost | None = None
    ) -> Estimation:
        """The same with what it is made of and costs (``cost`` tells), always counted in full, by
        all that is known.
        """
        self._take_in()
        parts = explain_request(endpoint, body)
        named = body.get("model")
        model = named if isinstance(named, str) else None
        output, hard = self._output(endpoint, body, model, user)
        features = feature_class(endpoint, parts)
        corrected = self._calibration.apply(model or "", features, parts.total)
        factor = round(self._calibration.factor(model or "", features), 6)
        hidden = self._calibration.hidden(model or "", features)
        used = Usage(1, corrected, output)
        nano = None if cost is None else cost(used, model, "")
        return Estimation(
            corrected, output, hard, parts, factor, hidden, used._replace(nano_usd=nano).usd
        )

    def _output(
        self, endpoint: str, body: Mapping[str, Any], model: str | None, user: str | None
    ) -> tuple[int, bool]:
        stated = output_allowance(endpoint, body)
        wanted = self._reserve_output
        fixed = number(wanted(endpoint, body) if callable(wanted) else wanted)
        if fixed is not None and fixed >= 0:
            return (fixed if stated is None else min(fixed, stated)), False
        if stated is not None and wanted != "learned":
            return stated, True
        learned = self._learned.predict(user or "", model or "", self.guess)
        learned *= answers(endpoint, body)
        return (learned if stated is None else min(learned, stated)), False

    def learn(self, user: str | None, model: str | None, demand: Demand, used: Usage) -> None:
        """Take in what the provider said a call used: at once while little is known, later by the
        handful, which takes a fraction of the time.
        """
        self._heard.append((user, model, demand, used))
        if len(self._heard) >= min(HANDFUL, self._taken_in // HANDFUL):
            self._take_in()

    def _take_in(self) -> None:
        while self._heard:
            try:
                user, model, demand, used = self._heard.popleft()
            except IndexError:  # another thread was quicker
                return
            self._taken_in += 1
            if self._calibrates and demand.counted and model:
                self._calibration.observe(model, demand.features, demand.counted, used.input_tokens)
            if model and used.output_tokens:
                self._learned.observe(user or "", model, used.output_tokens / demand.answers)

    def calibration(self) -> list[Factor]:
        """What calibration knows, the most observed first."""
        self._take_in()
        return self._calibration.snapshot()


def _for_model(body: Mapping[str, Any], model: str | None) -> Mapping[str, Any]:
    return body if model == body.get("model") else {**body, "model": model}


def is_large(body: Mapping[str, Any]) -> bool:
    """Whether a body holds so much text that counting it could stall an event loop."""
    room = LARGE
    waiting: list[Any] = [body]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            room -= len(value)
        elif isinstance(value, Mapping):
            room -= _REFERENCE if "$ref" in value else 0
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple)):
            room -= len(value)
            waiting.extend(value)
        if room < 0:
            return True
    return False
