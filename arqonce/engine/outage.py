"""What the main loop does while Redis is away, or takes no commands: it waits, and says so once."""

import asyncio
from collections.abc import Sequence

import structlog

from arqonce.connection.primary import StaleConnectionError
from arqonce.connection.redis import has_answered, why_waiting
from arqonce.engine.options import Chores
from arqonce.engine.renewals import RECONNECT_EVERY
from arqonce.trouble import AwayTime, Trouble

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.outage")


class Outage:
    """The present outage of Redis, if there is one."""

    def __init__(self) -> None:
        """Begin without one."""
        self._trouble = Trouble(_log, over="Redis is back")

    @property
    def away(self) -> AwayTime:
        """For how long Redis was away."""
        return self._trouble.away

    def end(self) -> None:
        """Take note that Redis answers."""
        self._trouble.note(None)

    async def wait_out(self, error: Exception, chores: Sequence[Chores]) -> None:
        """Say what is wrong, make chores hurry, and wait before the next look."""
        is_first = not self._trouble.is_known
        self._trouble.note(_trouble_of(error, is_first=is_first), reason=why_waiting(error))
        for chore in chores:  # a Redis that can be read but not written to is not back
            chore.hurry()
        if not (is_first and isinstance(error, StaleConnectionError)):  # the next connection may reach another
            await asyncio.sleep(RECONNECT_EVERY.total_seconds())


def _trouble_of(error: Exception, *, is_first: bool) -> str:
    if is_first and isinstance(error, StaleConnectionError):
        return "Redis takes no writes any more: looking for the primary"
    if has_answered(error):  # full, a replica, without its replicas
        return "Redis refuses a command: waiting until it takes it"
    return "Redis is gone: waiting for it"
