"""A call that wants to be admitted, and the ways to serve it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..errors import ModelNotAllowed
from ..identity import Identity
from ..policies import Fallback, Policy
from .lease import Cost, Demand
from .ops import Candidate


class Option(NamedTuple):
    """One way to serve the call: what it is estimated to use, and what that charges."""

    demand: Demand
    candidate: Candidate
    via: Fallback | None = None


class Ask(NamedTuple):
    """A call that wants to be admitted."""

    id: str
    identity: Identity
    model: str | None
    option: Callable[[str | None, Fallback | None, float], Option | None]
    """How a model would serve it, by a policy, leaving a share of each limit untouched; None: not
    at all."""
    allows: Callable[[str | None], bool]
    """Whether the tier includes a model."""
    policies: tuple[Policy, ...]
    lease: float
    """Seconds."""
    on_backend_error: str
    """"refuse", "allow" or "local": then the backend refuses only where it has nobody to ask."""
    instead_of: str | None = None
    rough: Callable[[str | None], Option] | None = None
    """The same by an upper bound that is cheap to have: if even that fits, nothing is counted."""
    denied: ModelNotAllowed | None = None
    """That the tier does not include the model, if so; then ``instead`` serves the call."""
    instead: Fallback | None = None
    observing: bool = False
    """Whether it goes in any case, as it is, and is only told what would have been done."""
    cost: Cost = lambda *_: None
    priority: float = 0.0
    flow: str = ""
    weight: float = 1.0
    """How it stands in line; see `quotaguard.core.ops.Reserve`."""

    def first(self) -> Option:
        """How the model that is asked for would serve it."""
        option = self.option(self.model, None, 0.0)
        assert option is not None  # what is asked for is tried in any case
        return option

    def fallbacks(self, policy: Fallback) -> list[Option]:
        """How those of the policy's models that may would serve it."""
        if policy.opt_out is not None and policy.opt_out(self.identity):
            return []
        found = [
            self.option(model, policy, 0.0)
            for model in policy.models
            if model != self.model and self.allows(model)
        ]
        return [option for option in found if option is not None]

    def options(self, policy: Fallback, so_far: list[Option]) -> list[Option]:
        """The ways to serve it, with those of the policy behind what came before."""
        more = self.fallbacks(policy)
        if policy.at == 1.0 or not more or len(so_far) != 1 or self.denied is not None:
            return so_far + more
        early = self.option(self.model, None, 1.0 - policy.at)
        assert early is not None
        return [early, *more, *so_far]
