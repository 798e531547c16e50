"""Computes the wait before the next attempt."""

import random
from datetime import timedelta

_BASE = timedelta(milliseconds=500)
"""Upper bound of the wait after the first attempt."""

_CAP = timedelta(minutes=1)
"""Longest wait: after an outage, every retry starts within this time."""

_LARGEST_EXPONENT = 16
"""Largest number of doublings: 2 ** attempt overflows a timedelta, and the cap is reached long before."""


def backoff(attempt: int) -> timedelta:
    """Return a random wait after attempt number ``attempt`` (from 1): up to 0.5 s, 1 s, 2 s ... 1 min.

    Full jitter spreads the retries of jobs that failed together (M. Brooker, "Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015). Never zero: arq treats a wait of zero as no wait.
    """
    doublings = min(max(attempt, 1) - 1, _LARGEST_EXPONENT)
    longest = min(_CAP, _BASE * (1 << doublings))
    jittered = longest * random.random()  # noqa: S311 - no secret
    return max(timedelta(milliseconds=1), jittered)
