"""Acts on many dead letters, in steps, while nobody has to wait: they belong to the process of the console.

They go on when the browser is closed, and show how far they are to whoever looks. They end with the console: what is
not done by then is as it was, the audit says how far the act came, and it can be repeated.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

import structlog
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from arqonce.console.asked import PageError
from arqonce.control.dead_letters import DeadAct, Sessions, begin, recorded

MOST_RUNNING = 3
"""Acts at once: each uses a connection to PostgreSQL most of the time."""

_MOST_KNOWN = 50

_STEP_LIMIT = timedelta(seconds=2)
"""How long the end of the console waits for the present steps."""

_ENDED = "The console has ended."

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.console.bulk")


class BulkState(StrEnum):
    """How far an act is."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    """By an operator."""

    BROKEN_OFF = "broken off"
    """By an outage, or by the end of the console."""


Steps = Callable[[datetime], AsyncGenerator[int, None]]
"""Does the act on letters that had died until then; yields how many each step was."""


@dataclass(kw_only=True)
class BulkAct:
    """An act that is under way, or has ended."""

    act: DeadAct
    title: str
    verb: str
    """Such as ``put back``."""

    total: int
    is_more: bool
    """Whether there are more than ``total``: they were not counted further."""

    steps: Steps
    number: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    """Names it in addresses."""

    done: int = 0
    state: BulkState = BulkState.RUNNING
    trouble: str | None = None
    ends_as: BulkState | None = None
    """What it is to end as behind its present step: somebody stops it, or the console ends."""

    task: "asyncio.Task[None] | None" = None


class BulkActs:
    """The acts of this console, the latest ones."""

    def __init__(self) -> None:
        """Begin with none."""
        self._acts: OrderedDict[str, BulkAct] = OrderedDict()

    def find(self, number: str) -> BulkAct | None:
        """Return an act."""
        return self._acts.get(number)

    @property
    def running(self) -> list[BulkAct]:
        """Those under way."""
        return [one for one in self._acts.values() if one.state is BulkState.RUNNING]

    def start(
        self, one: BulkAct, sessions: Sessions, *, explain: Callable[[Exception], str], ended: Callable[[], None]
    ) -> None:
        """Begin an act. ``explain`` says what is wrong with a server; ``ended`` is called at its end.

        Raises:
            PageError: too many are under way.
        """
        if len(self.running) >= MOST_RUNNING:
            raise PageError(409, "Others are under way", f"{MOST_RUNNING} acts run. Wait for one, or stop it.")
        self._acts[one.number] = one
        for number in [known.number for known in self._acts.values() if known.state is not BulkState.RUNNING]:
            if len(self._acts) > _MOST_KNOWN:
                del self._acts[number]
        one.task = asyncio.create_task(_run(one, sessions, explain, ended), name="console-bulk")

    async def close(self) -> None:
        """Break off what is under way behind its present step, and put on record how far it came."""
        for one in self.running:
            one.ends_as, one.trouble = BulkState.BROKEN_OFF, _ENDED
        if left := {one.task for one in self.running if one.task is not None}:
            _, left = await asyncio.wait(left, timeout=_STEP_LIMIT.total_seconds())
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)


async def wait_shortly(one: BulkAct, limit: timedelta = timedelta(seconds=1)) -> None:
    """Wait until the act has ended, but not long: most are short."""
    if one.task is not None:
        await asyncio.wait([one.task], timeout=limit.total_seconds())


async def _run(
    one: BulkAct, sessions: Sessions, explain: Callable[[Exception], str], ended: Callable[[], None]
) -> None:
    try:
        await _do(one, sessions)
    except asyncio.CancelledError:
        one.state, one.trouble = BulkState.BROKEN_OFF, _ENDED
        raise
    except (SQLAlchemyError, RedisError, OSError) as error:
        one.state, one.trouble = BulkState.BROKEN_OFF, explain(error)
        _log.warning("an act was broken off", act=one.act.name, done=one.done, reason=one.trouble)
    finally:
        ended()


async def _do(one: BulkAct, sessions: Sessions) -> None:
    until = await begin(sessions)
    async with recorded(one.act, sessions, one.total, lambda: one.done), aclosing(one.steps(until)) as steps:
        async for number in steps:
            one.done += number
            if one.ends_as is not None:
                break
    one.state = one.ends_as or BulkState.DONE
    async with sessions.begin() as session:
        await one.act.called(one.state.value).record(session, one.done)
