"""What to do when a limit has no room: a list of these is tried in order.

``[Fallback("gpt-4o-mini"), Wait(max_seconds=30), Refuse()]`` serves the smaller model if that has
room, else waits up to half a minute for either, else refuses. A list that ends without `Refuse`
refuses at its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

from .errors import ConfigurationError
from .identity import Identity

if TYPE_CHECKING:
    from tenacity import RetryCallState

Curve: TypeAlias = "Callable[[RetryCallState], float]"
"""A tenacity wait strategy, such as ``wait_random(0, 0.1)``."""

Adapt: TypeAlias = (
    "Mapping[str, Mapping[str, Any]] | Callable[[Mapping[str, Any], str], Mapping[str, Any]]"
)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Raise `QuotaExceeded` (429)."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """Serve the first of these models that has room; the reservation itself decides which.

    Attributes:
        models: their names, in the order they are tried.
        at: the share of a limit that is used up before the model asked for gives way: 1.0 is all of
            it, 0.8 saves the last fifth for when these models have no room either.
        adapt: what is changed in the body of a request that another model serves, over what the
            table for that model does (`quotaguard.providers.adapting`): a mapping from the model's
            name to a mapping of fields (None takes a field out), or a callable of body and model
            that gives the body.
        opt_out: a callable of the caller's `Identity`: true for who would rather be refused.

    Raises:
        ConfigurationError: a value is wrong.
    """

    models: tuple[str, ...]
    at: float = 1.0
    adapt: Adapt | None = None
    opt_out: Callable[[Identity], object] | None = None

    def __init__(
        self,
        *models: str,
        at: float = 1.0,
        adapt: Adapt | None = None,
        opt_out: Callable[[Identity], object] | None = None,
    ) -> None:
        if not models or not all(isinstance(m, str) and m for m in models):
            raise ConfigurationError(f"Fallback takes the names of models, not {models!r}")
        if isinstance(at, bool) or not isinstance(at, (int, float)) or not 0 < at <= 1:
            raise ConfigurationError(f"at is a share of the limit such as 0.8, not {at!r}")
        if not (adapt is None or callable(adapt) or _is_table(adapt, models)):
            raise ConfigurationError(
                "adapt maps models of the Fallback to fields such as {'temperature': None}, or is "
                f"a callable of body and model; not {adapt!r}"
            )
        if opt_out is not None and not callable(opt_out):
            raise ConfigurationError(f"opt_out is a callable of the identity, not {opt_out!r}")
        object.__setattr__(self, "models", models)
        object.__setattr__(self, "at", float(at))
        object.__setattr__(self, "adapt", adapt)
        object.__setattr__(self, "opt_out", opt_out)

    def adapted(self, body: Mapping[str, Any], model: str) -> Mapping[str, Any]:
        """The body for a model, after what its table changed."""
        if callable(self.adapt):
            return self.adapt(body, model)
        changes = (self.adapt or {}).get(model, {})
        kept = {key: value for key, value in body.items() if key not in changes}
        return kept | {key: value for key, value in changes.items() if value is not None}


def _is_table(adapt: object, models: tuple[str, ...]) -> bool:
    return isinstance(adapt, Mapping) and all(
        model in models and isinstance(fields, Mapping) for model, fields in adapt.items()
    )


@lru_cache(maxsize=1)
def _short_jitter() -> Curve:
    from tenacity import wait_random  # it loads asyncio, which `import quotaguard` need not

    return wait_random(0, 0.05)


@dataclass(frozen=True, slots=True)
class Wait:
    """Stand in line, first come, first served, until there is room.

    The wait is computed and a refund ends it early. One that would be longer than ``max_seconds``
    is refused at once.

    Attributes:
        max_seconds: the longest wait, in seconds.
        backoff: what a tenacity curve adds to each pause, so that callers in many processes who
            were told the same time do not come back in the same instant; None adds nothing.
        fair: whether its turn comes as others' do; False: it lets everybody pass.
    """

    max_seconds: float
    backoff: Curve | None = field(default_factory=_short_jitter)
    fair: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.max_seconds, bool) or not isinstance(self.max_seconds, (int, float)):
            raise ConfigurationError(
                f"max_seconds is a number of seconds, not {self.max_seconds!r}"
            )
        if not 0 < self.max_seconds < math.inf:
            raise ConfigurationError(f"max_seconds is > 0 and finite, not {self.max_seconds!r}")
        if self.backoff is not None and not callable(self.backoff):
            raise ConfigurationError(
                "backoff is a tenacity wait such as wait_random(0, 0.1), or None, not "
                f"{self.backoff!r}"
            )
        if not isinstance(self.fair, bool):
            raise ConfigurationError(f"fair is True or False, not {self.fair!r}")

    def pause(self, computed: float, attempt: int) -> float:
        """Seconds to park: the computed wait and the jitter of this attempt (1, 2, ...)."""
        return computed if self.backoff is None else computed + _drawn(self.backoff, attempt)


def _drawn(curve: Curve, attempt: int) -> float:
    """Seconds that a curve says for an attempt (1, 2, ...)."""
    from tenacity import RetryCallState

    nothing: Any = None
    state = RetryCallState(retry_object=nothing, fn=None, args=(), kwargs={})
    state.attempt_number = attempt
    return max(0.0, float(curve(state)))


def provider_pause(attempt: int) -> float:
    """Seconds to leave a provider alone that refused for so many times in a row and does not say
    for how long: between 1 and 2 s at first, about twice as long each time, at most a minute.
    """
    from tenacity import wait_exponential_jitter

    return _drawn(wait_exponential_jitter(initial=1, max=60), attempt)


Policy: TypeAlias = Refuse | Wait | Fallback


def policies(value: object, where: str = "when_exceeded") -> tuple[Policy, ...]:
    """A list of policies, checked; ``where`` says of what, for the error.

    Raises:
        ConfigurationError: something else is in it, or something stands behind `Refuse`.
    """
    if isinstance(value, (Refuse, Wait, Fallback)):
        return (value,)
    if not isinstance(value, Iterable) or isinstance(value, (str, bytes)):
        raise ConfigurationError(f"{where} is a list of policies, not {value!r}")
    chosen = tuple(value)
    for position, each in enumerate(chosen):
        if not isinstance(each, (Refuse, Wait, Fallback)):
            raise ConfigurationError(
                f"{where} holds Refuse(), Wait(...) and Fallback(...), not {each!r}"
            )
        if isinstance(each, Refuse) and position < len(chosen) - 1:
            raise ConfigurationError(
                f"{where}: nothing is tried after Refuse(), so {chosen[position + 1]!r} is never "
                "reached"
            )
    return chosen
