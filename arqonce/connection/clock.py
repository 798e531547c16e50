"""Reads the clock of Redis, by which due times, leases and pauses are told: that of this machine may be wrong."""

import time
from datetime import timedelta
from typing import NamedTuple

from redis.asyncio import Redis

CLOCK_OFF = timedelta(seconds=1)
"""A clock that differs by more is remarkable."""


class Clock(NamedTuple):
    """One reading."""

    ms: int
    """Milliseconds since 1970, as Redis tells them."""

    offset: float
    """By how many seconds it is ahead of this machine's clock, at least; below 0 if it is behind."""


async def read_clock(redis: Redis) -> Clock:
    """Read it. One round trip."""
    sent = time.time()
    seconds, microseconds = await redis.time()
    return Clock(seconds * 1000 + microseconds // 1000, clock_offset(seconds + microseconds / 1e6, sent, time.time()))


def clock_offset(theirs: float, sent: float, answered: float) -> float:
    """Return how far their clock differs from ours for certain: it was read between two readings of ours."""
    if theirs > answered:
        return theirs - answered
    return min(0.0, theirs - sent)
