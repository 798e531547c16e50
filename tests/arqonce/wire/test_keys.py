"""Ids of jobs."""

import time
from itertools import pairwise
from uuid import RFC_4122, UUID

from arqonce.wire.keys import new_job_id, new_job_ids


def test_ids_ascend_with_time_and_cannot_be_guessed() -> None:
    """They are UUIDs of version 7: indexes of ids grow at their end, and jobs of one call start in its order."""
    first = time.time_ns() // 1_000_000
    ids = [UUID(job_id) for job_id in new_job_ids([None] * 5000)]
    last = time.time_ns() // 1_000_000
    times = [one.int >> 80 for one in ids]

    assert {(one.version, one.variant) for one in ids} == {(7, RFC_4122)}
    assert times == sorted(times)
    assert first <= times[0] <= times[-1] <= last
    assert ids == sorted(ids)
    assert len({one.int % 2**62 for one in ids}) == len(ids)


def test_jobs_of_one_producer_start_in_the_order_of_its_calls() -> None:
    """Of those with one score, Redis takes the smaller id first; a millisecond has many calls."""
    ids = [new_job_id(None) for _ in range(500)]

    assert sum(first < second for first, second in pairwise(ids)) > 400


def test_keys_keep_their_places_among_new_ids() -> None:
    """A key is the id as it is."""
    first, key, last = new_job_ids([None, "order-1", None])

    assert (key, first < last) == ("order-1", True)
