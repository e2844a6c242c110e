"""OpenTelemetry: metrics of every call, and its facts on the span that it is made in.

Needs ``quotaguard[otel]``, OpenTelemetry's API. Without its SDK, which the application sets up,
nothing is recorded. Names follow the semantic conventions for generative AI where they have one.
"""

from __future__ import annotations

from .hook import OpenTelemetry, instrument

__all__ = ["OpenTelemetry", "instrument"]
