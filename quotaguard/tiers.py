"""Tiers: what a kind of user may use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ConfigurationError
from .identity import urgency
from .limits import Limit
from .models import matches
from .policies import Fallback, Policy, Refuse, policies


@dataclass(frozen=True, slots=True, init=False)
class Tier:
    """A named plan: limits, models, and what happens when a limit is exceeded.

    Attributes:
        name: what ``tier=`` says.
        limits: all of them must have room.
        models: shell patterns of the models that may be used; empty: all.
        when_exceeded: policies tried in order (see `quotaguard.policies`); None: the guard's.
        when_not_allowed: what becomes of a call to another model: `Refuse` (403), or a `Fallback`
            whose models serve it instead.
        warn_at: shares of each limit, such as 0.8, that warn when they are used up; None: the
            guard's.
        priority: how early its calls' turn comes in line, where they do not say; a unit counts as
            half a minute.
        weight: how large a share each of its users has of a limit that is shared fairly, in
            proportion to others'.

    Raises:
        ConfigurationError: a value is wrong; the message says which.
    """

    name: str
    limits: tuple[Limit, ...]
    models: tuple[str, ...]
    when_exceeded: tuple[Policy, ...] | None
    when_not_allowed: Refuse | Fallback
    warn_at: tuple[float, ...] | None
    priority: float
    weight: float

    def __init__(
        self,
        name: str,
        limits: Iterable[str | Limit | Mapping[str, Any]] = (),
        models: Iterable[str] = (),
        when_exceeded: Iterable[Policy] | Policy | None = None,
        when_not_allowed: Refuse | Fallback = Refuse(),  # noqa: B008  # frozen
        warn_at: float | Iterable[float] | None = None,
        priority: float = 0.0,
        weight: float = 1.0,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"a tier's name is a non-empty string, not {name!r}")
        patterns = tuple(models) if isinstance(models, Iterable) else (models,)
        if isinstance(models, str) or not all(isinstance(p, str) and p for p in patterns):
            raise ConfigurationError(f"tier {name!r}: models is a list of names, not {models!r}")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "limits", distinct(limits, f"tier {name!r}"))
        object.__setattr__(self, "models", patterns)
        where = f"tier {name!r}: when_exceeded"
        chosen = None if when_exceeded is None else policies(when_exceeded, where)
        object.__setattr__(self, "when_exceeded", chosen)
        if not isinstance(when_not_allowed, (Refuse, Fallback)):
            raise ConfigurationError(
                f"tier {name!r}: when_not_allowed is Refuse() or Fallback(...), "
                f"not {when_not_allowed!r}"
            )
        if isinstance(when_not_allowed, Fallback):
            for model in when_not_allowed.models:
                if not self.allows(model):
                    raise ConfigurationError(
                        f"tier {name!r}: when_not_allowed names {model!r}, which is not among its "
                        f"models: {', '.join(patterns)}"
                    )
        object.__setattr__(self, "when_not_allowed", when_not_allowed)
        shares = None if warn_at is None else thresholds(warn_at, f"tier {name!r}: warn_at")
        object.__setattr__(self, "warn_at", shares)
        object.__setattr__(self, "weight", _share(weight, f"tier {name!r}"))
        try:
            object.__setattr__(self, "priority", float(urgency(priority) or 0.0))
        except ConfigurationError as error:
            raise ConfigurationError(f"tier {name!r}: {error}") from error

    def overridden(
        self,
        limits: Iterable[str | Limit | Mapping[str, Any]] = (),
        models: Iterable[str] | None = None,
        when_exceeded: Iterable[Policy] | Policy | None = None,
    ) -> Tier:
        """The same tier for somebody who has terms of their own.

        Args:
            limits: take the place of the tier's limits about the same thing (metric, period, scope
                and models), and stand beside the others.
            models, when_exceeded: instead of the tier's, where given.

        Raises:
            ConfigurationError: a value is wrong.
        """
        own = distinct(limits, f"tier {self.name!r}, overridden")
        about = {(limit.scope, limit.id) for limit in own}
        kept = [limit for limit in self.limits if (limit.scope, limit.id) not in about]
        return Tier(
            self.name,
            (*kept, *own),
            self.models if models is None else models,
            self.when_exceeded if when_exceeded is None else when_exceeded,
            self.when_not_allowed,
            self.warn_at,
            self.priority,
            self.weight,
        )

    def allows(self, model: str | None) -> bool:
        """Whether the tier includes the model (a call without a model is always allowed)."""
        return not self.models or model is None or any(matches(model, p) for p in self.models)


def _share(weight: object, where: str) -> float:
    number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
    if not number or not 1e-6 <= weight <= 1e6:  # type: ignore[operator]
        raise ConfigurationError(f"{where}: weight is a number from 1e-6 to 1e6, not {weight!r}")
    return float(weight)  # type: ignore[arg-type]


def thresholds(value: Any, where: str) -> tuple[float, ...]:
    """Shares of a limit that warn, in ascending order.

    Raises:
        ConfigurationError: one is no number between 0 and 1.
    """
    shares = tuple(value) if isinstance(value, (list, tuple, set)) else (value,)
    for share in shares:
        number = isinstance(share, (int, float)) and not isinstance(share, bool)
        if not number or not 0 < share < 1:
            raise ConfigurationError(f"{where} is a share such as 0.8, or some, not {value!r}")
    return tuple(sorted(shares))


def distinct(limits: Iterable[str | Limit | Mapping[str, Any]], where: str) -> tuple[Limit, ...]:
    """Limits, parsed; no two of the same scope may name the same bucket.

    Raises:
        ConfigurationError: one cannot be read, or two are about the same thing.
    """
    if isinstance(limits, (str, Limit, Mapping)) or not isinstance(limits, Iterable):
        raise ConfigurationError(
            f"{where}: limits is a list such as ['10k tokens/day'], not {limits!r}"
        )
    try:
        parsed = tuple(Limit.parse(limit) for limit in limits)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from error
    seen: dict[tuple[str, str], Limit] = {}
    for limit in parsed:
        other = seen.setdefault((limit.scope, limit.id), limit)
        if other is not limit:
            raise ConfigurationError(
                f"{where}: {str(other)!r} and {str(limit)!r} limit the same thing; keep one"
            )
    return parsed
