"""What counts as more than a worker should hold."""

from dataclasses import replace

import pytest

from chaos.soak import Holdings, grown

BEFORE = Holdings(places=10, connections=13, busy=0, descriptors=40, threads=4, memory_mb=100)


def test_a_worker_that_is_as_it_was_has_not_grown() -> None:
    """Within the tolerances, which a pool and an allocator need."""
    after = replace(BEFORE, connections=15, descriptors=43, memory_mb=125)

    assert grown(BEFORE, after) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [("places", 9), ("connections", 17), ("busy", 1), ("descriptors", 47), ("threads", 7), ("memory_mb", 131)],
)
def test_each_leak_is_named(name: str, value: int) -> None:
    """By what the worker holds too many of; of places it has too few."""
    assert grown(BEFORE, replace(BEFORE, **{name: value})) == [name]


def test_places_that_were_lost_early_are_lost() -> None:
    """A worker that was broken before the first look is not as it was."""
    early = replace(BEFORE, places=7)

    assert grown(early, early) == ["places"]
