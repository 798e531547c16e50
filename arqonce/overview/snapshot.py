"""The state of the whole at one moment: queues, workers, promises, dead letters, rates. Prints nothing.

Costs some ten statements in PostgreSQL and seven round trips for each queue in Redis. Each figure is bounded, so that
it takes no longer with a million queued jobs and ten million receipts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.connection.presence import LiveWorker, live_workers, unserved, what_they_do
from arqonce.connection.queue_kinds import Kinds, read_kinds
from arqonce.connection.queue_status import QueueStatus, read_queue_status
from arqonce.connection.refusal import refused_write
from arqonce.connection.worker_troubles import Trouble, troubles_of
from arqonce.ledger.losses import latest_losses
from arqonce.ledger.overview import (
    MOST_QUEUES,
    MOST_READ,
    DeadBy,
    Done,
    Estimates,
    FailedBy,
    PromisedIn,
    dead_by_kind,
    done_by_kind,
    estimate,
    failed_by_kind,
    promised_by_queue,
)
from arqonce.ledger.pauses import list_pauses
from arqonce.ledger.schedule_control import paused_schedules
from arqonce.ledger.tables import Pause, RedisLoss, ScheduleState
from arqonce.overview.looks import Looks
from arqonce.relay.unserved import BEHIND

_LOSSES_SINCE = timedelta(days=1)
_MOST_LOSSES = 5


@dataclass(frozen=True, kw_only=True)
class QueueFigures:
    """What Redis says."""

    queues: Mapping[str, QueueStatus]
    kinds: Mapping[str, Kinds]
    workers: Sequence[LiveWorker]
    unserved: Sequence[str]
    """Queues in which jobs wait and that no worker serves."""

    troubles: Sequence[Trouble] = ()
    """What is wrong with the workers."""

    refusal: RedisError | None = None
    """Why Redis takes no writes, so that no job starts."""

    @property
    def served(self) -> Mapping[str, int]:
        """How many live workers serve each queue."""
        return Counter(queue for worker in self.workers for queue in worker.queues)


@dataclass(frozen=True, kw_only=True)
class LedgerFigures:
    """What PostgreSQL says; a figure that this role may not see is ``None``."""

    promised: Sequence[PromisedIn] | None
    dead: Sequence[DeadBy] | None
    done: Sequence[Done] | None
    failed: Sequence[FailedBy] | None
    losses: Sequence[RedisLoss] | None
    """Of the last day, the last one first."""

    pauses: Sequence[Pause] | None
    """All that are in force."""

    paused_schedules: Sequence[ScheduleState] | None
    estimates: Estimates | None

    @property
    def all_promised(self) -> str:
        """How many jobs are promised, in words."""
        promised = self.promised or ()
        is_more = any(one.is_more for one in promised) or self.has_more_promised
        return _in_words(
            sum(one.promised for one in promised), is_more=is_more, about=self.estimates and self.estimates.promised
        )

    @property
    def all_overdue(self) -> str:
        """How many of them a relay should have given to Redis, in words."""
        promised = self.promised or ()
        is_more = any(one.is_more and one.overdue == one.promised for one in promised) or self.has_more_promised
        return _in_words(sum(one.overdue for one in promised), is_more=is_more, about=None)

    @property
    def has_more_promised(self) -> bool:
        """Whether ``promised`` has some of the queues with promised jobs alone."""
        return len(self.promised or ()) > MOST_QUEUES

    @property
    def all_dead(self) -> str:
        """How many dead letters there are, in words."""
        dead = sum(one.letters for one in self.dead or ())
        return _in_words(dead, is_more=self.has_more_dead, about=self.estimates and self.estimates.dead)

    @property
    def has_more_dead(self) -> bool:
        """Whether ``dead`` has the latest dead letters alone."""
        return sum(one.letters for one in self.dead or ()) >= MOST_READ


def _in_words(counted: int, *, is_more: bool, about: int | None) -> str:
    """Return a number that was counted, or if there are more about how many there are, with two digits of it."""
    if not is_more:
        return f"{counted:,}"
    if about is None or about <= counted:
        return f"{counted:,} or more"
    return f"about {round(about, 2 - len(str(about))):,}"


async def read_queues(redis: Redis, queues: Sequence[str], behind: Sequence[str], looks: Looks) -> QueueFigures:
    """Ask Redis for these queues. ``behind`` are others, whose promised jobs no relay gives to Redis."""
    found = {queue: await read_queue_status(redis, queue) for queue in queues}
    kinds = {
        queue: await looks.in_redis(f"waiting by kind in {queue}", read_kinds(redis, queue), Kinds({}, 0, 0))
        for queue in queues
    }
    workers = await live_workers(redis)
    said = await looks.in_redis("what workers do", what_they_do(redis, workers), [])
    waiting = [queue for queue, status in found.items() if (status.oldest_waiting or timedelta(0)) > BEHIND]
    refusal = await looks.in_redis("whether Redis takes writes", refused_write(redis), None)
    return QueueFigures(
        queues=found,
        kinds=kinds,
        workers=workers,
        unserved=await unserved(redis, list(dict.fromkeys([*waiting, *behind]))),
        troubles=troubles_of(zip(workers, said, strict=False)),
        refusal=refusal,
    )


async def read_ledger(looks: Looks) -> LedgerFigures:
    """Ask PostgreSQL."""

    async def losses(session: AsyncSession) -> Sequence[RedisLoss]:
        return await latest_losses(session, since=_LOSSES_SINCE, limit=_MOST_LOSSES)

    async with looks.together():
        return LedgerFigures(
            promised=await looks.in_ledger("promised jobs", promised_by_queue, None),
            dead=await looks.in_ledger("dead letters", dead_by_kind, None),
            done=await looks.in_ledger("jobs done per second", done_by_kind, None),
            failed=await looks.in_ledger("failed attempts", failed_by_kind, None),
            losses=await looks.in_ledger("losses of Redis", losses, None),
            pauses=await looks.in_ledger("pauses", list_pauses, None),
            paused_schedules=await looks.in_ledger("paused schedules", paused_schedules, None),
            estimates=await looks.in_ledger("estimates", estimate, None),
        )
