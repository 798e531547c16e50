"""How long to wait before the next try."""

import random
from datetime import timedelta

_BASE = timedelta(milliseconds=500)
"""Upper bound of the wait after the first attempt."""

_CAP = timedelta(minutes=1)
"""Longest wait: an outage is over for everybody at most so long after it ended."""

_LARGEST_EXPONENT = 16
"""2 ** attempt overflows a timedelta; the cap is reached long before."""


def backoff(attempt: int) -> timedelta:
    """Return a random wait after the ``attempt``-th try (from 1): up to 0.5 s, 1 s, 2 s ... 1 min.

    Full jitter spreads the retries of jobs that failed together (M. Brooker, "Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015). Never zero: arq takes a wait of zero for none.
    """
    doublings = min(max(attempt, 1) - 1, _LARGEST_EXPONENT)
    longest = min(_CAP, _BASE * (1 << doublings))
    jittered = longest * random.random()  # noqa: S311 - no secret
    return max(timedelta(milliseconds=1), jittered)
