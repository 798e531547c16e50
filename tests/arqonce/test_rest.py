"""What the parts of a worker know of its idleness, on a clock of the tests' own."""

import asyncio
from datetime import timedelta

from arqonce.rest import Rest
from tests.arqonce.engine.clock import on_its_own_clock

USUAL, LONGEST = timedelta(seconds=2), timedelta(seconds=60)


async def _slept(rest: Rest) -> float:
    loop = asyncio.get_running_loop()
    since = loop.time()
    await rest.sleep(USUAL, LONGEST)
    return loop.time() - since


@on_its_own_clock
async def test_who_rests_sleeps_longer() -> None:
    """And others as always."""
    rest = Rest()
    awake = await _slept(rest)
    rest.begin()

    at_rest = await _slept(rest)

    assert (awake, at_rest) == (2, 60)


@on_its_own_clock
async def test_the_end_of_the_rest_wakes_after_the_usual_time() -> None:
    """Not at once: a worker that claims a job now and then rests again meanwhile, and sleeps on."""
    rest, loop = Rest(), asyncio.get_running_loop()
    rest.begin()
    loop.call_later(10, rest.end)
    loop.call_later(11, rest.begin)
    loop.call_later(30, rest.end)

    assert await _slept(rest) == 32


@on_its_own_clock
async def test_an_alarm_wakes_who_sleeps_and_not_who_sleeps_later() -> None:
    """The rest goes on."""
    rest, loop = Rest(), asyncio.get_running_loop()
    rest.begin()
    loop.call_later(10, rest.stir)

    assert [await _slept(rest), await _slept(rest)] == [12, 60]
