"""Waiting before the next try. No server is needed."""

from datetime import timedelta

import pytest

from arqonce.backoff import backoff


@pytest.mark.parametrize(("attempt", "longest"), [(0, 0.5), (1, 0.5), (2, 1), (5, 8), (8, 60), (10**9, 60)])
def test_the_wait_doubles_up_to_its_cap(attempt: int, longest: float) -> None:
    """Spread over the whole range, never zero, never more than the cap."""
    waits = [backoff(attempt) for _ in range(500)]

    assert timedelta(0) < min(waits) < timedelta(seconds=longest * 0.1)
    assert timedelta(seconds=longest * 0.9) < max(waits) <= timedelta(seconds=longest)
