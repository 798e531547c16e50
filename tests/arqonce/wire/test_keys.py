"""Ids of jobs."""

import time
from uuid import RFC_4122, UUID

from arqonce.wire.keys import new_job_id


def test_ids_ascend_with_time_and_cannot_be_guessed() -> None:
    """They are UUIDs of version 7: indexes of ids grow at their end, however many rows they have."""
    first = time.time_ns() // 1_000_000
    ids = [UUID(new_job_id(None)) for _ in range(5000)]
    last = time.time_ns() // 1_000_000
    times = [one.int >> 80 for one in ids]

    assert {(one.version, one.variant) for one in ids} == {(7, RFC_4122)}
    assert times == sorted(times)
    assert first <= times[0] <= times[-1] <= last
    assert len({one.int % 2**62 for one in ids}) == len(ids)
