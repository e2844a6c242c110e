"""The quota stress test: 500 tokens a day for alice, and prompts that do not fit.

A prompt of 600 tokens never fits. Of two prompts of 300 tokens the first passes, the second fails.
Then the money question: 1,000 users are blocked like that every day; how much is saved?

`quotaguard stress` is the same with any numbers.
"""

from __future__ import annotations

from quotaguard.savings import saved_by_blocking
from quotaguard.stress import stress_test
from quotaguard.usage import Usage

SECONDS_A_DAY = 24 * 60 * 60


def main() -> None:
    """Send the three prompts, then do the sum."""
    test = stress_test(quota=500, prompts=(600, 300, 300), answer=100, users=1_000)
    print(test)

    script = [Usage(1, 600, 100)] * SECONDS_A_DAY
    loop = saved_by_blocking(script, "gpt-4o", users=1)
    print(
        f"""
Not much, while people type. A script that sends the 600-token prompt once a second, for one user,
would cost ${loop.per_day:,.2f} a day. The quota stops its every call."""
    )


if __name__ == "__main__":
    main()
