"""Replaying recorded usage under a policy, to choose its numbers before they bite anybody."""

from __future__ import annotations

from .log import Log, calls_of
from .replay import replay
from .results import Comparison, Simulation

__all__ = ["Comparison", "Log", "Simulation", "calls_of", "replay"]
