"""Chores whose faults end nothing."""

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from arqonce.engine.chores import ContainedChores
from arqonce.engine.options import Chores


class _Scripted:
    """Raises these errors, one each time."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.done = 0

    async def do(self) -> None:
        self.done += 1
        if self.errors:
            raise self.errors.pop(0)

    def due_in(self) -> float:
        return 0.0

    def hurry(self) -> None:
        self.done = 0


async def test_a_fault_is_told_once_and_the_chore_waits() -> None:
    """Otherwise a value that somebody has written would end the worker, or fill its log."""
    scripted = _Scripted(OverflowError("infinity"))
    chores: Chores = ContainedChores(scripted)

    with capture_logs() as logs:
        for _ in range(3):
            await chores.do()
    wait = chores.due_in()
    chores.hurry()
    await chores.do()

    assert [line["chore"] for line in logs] == ["_Scripted"]
    assert 9 < wait <= 10
    assert (scripted.done, chores.due_in()) == (1, 0.0)


async def test_an_outage_is_the_engines() -> None:
    """It waits for Redis."""
    with pytest.raises(RedisConnectionError):
        await ContainedChores(_Scripted(RedisConnectionError())).do()
