"""Hypothesis strategies for quotaguard's own values."""

from __future__ import annotations

from hypothesis import strategies as st

from quotaguard import Limit
from quotaguard.metrics import METRICS

ZONES = ("UTC", "Europe/Paris", "America/New_York", "Asia/Tokyo", "Asia/Kathmandu", "Africa/Cairo")

PERIODIC = sorted(METRICS.keys() - {"concurrent"})
"""Metrics of what is used up in a time."""

moments = st.floats(1.6e9, 2.1e9)
"""Seconds since the epoch, 2020 to 2036, to the last bit."""
shares = st.integers(0, 10_000).map(lambda n: n / 10_000)
"""From nothing to all, in steps that floats can tell apart."""
amounts = (
    st.integers(1, 10**9)
    | st.floats(0.01, 1e9)
    | st.sampled_from([500, 90_000, 1_500_000, 150_000_000])
)
"""Of tokens, requests or dollars."""
periods = st.sampled_from([1, 60, 3600, 86_400, 2, 0.5, 90, 7200, 2_592_000]) | st.floats(0.1, 1e6)
"""Seconds."""
models = st.text("abcdefghijklmnopqrstuvwxyz0123456789-._*?[]/:", min_size=1, max_size=20)

buckets = st.builds(Limit, amounts, st.sampled_from(PERIODIC), periods)
"""Limits that refill continuously."""


@st.composite
def limits(draw: st.DrawFn) -> Limit:
    """Limits of either kind, with anything that their text can say."""
    shared = {
        "amount": draw(amounts),
        "metric": draw(st.sampled_from(PERIODIC)),
        "scope": draw(st.sampled_from(["user", "org", "global"])),
        "models": tuple(draw(st.lists(models, max_size=3))),
    }
    if draw(st.booleans()):
        unit, zone = draw(st.sampled_from(["day", "week", "month"])), draw(st.sampled_from(ZONES))
        return Limit(**shared, period=unit, tz=zone)  # type: ignore[arg-type]
    burst = draw(st.none() | amounts)
    return Limit(**shared, period=draw(periods), burst=burst)  # type: ignore[arg-type]
