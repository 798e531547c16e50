"""Queues: what waits in each, by kind, and what is paused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from aiohttp import web
from redis.asyncio import Redis

from arqonce.connection.queue_kinds import OTHER
from arqonce.connection.queue_status import QueueStatus
from arqonce.console.asked import Asked, Name, PageError, read_query
from arqonce.console.core import console_of, may_act
from arqonce.console.limits import limits_of
from arqonce.console.pages.pauses import held_of
from arqonce.console.poll import Reading
from arqonce.console.responses import show_page
from arqonce.console.routes import page
from arqonce.console.trends import RangeName, charts_of
from arqonce.control.queues import Target
from arqonce.ledger.overview import PromisedIn
from arqonce.ledger.pauses import WHOLE
from arqonce.ledger.tables import Pause
from arqonce.overview.looks import Looks
from arqonce.overview.snapshot import QueueFigures, read_queues
from arqonce.spec import Registry


@dataclass(frozen=True, kw_only=True)
class _Queue:
    """One row of the list."""

    name: str
    status: QueueStatus
    workers: int
    is_unserved: bool
    promised: PromisedIn | None
    pauses: Sequence[Pause]

    @property
    def pause(self) -> Pause | None:
        """The pause of the whole queue."""
        return next((one for one in self.pauses if one.job_name == WHOLE), None)


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """A kind of jobs in a queue."""

    name: str
    waiting: int
    held: int
    """Of a paused kind: those that workers have put aside."""

    workers: int
    """Live workers of the queue that say that they can run it."""

    pause: Pause | None
    limits: Sequence[str] = ()
    """As the registry of the console has them."""


@dataclass(frozen=True, kw_only=True)
class _EveryKind:
    """A kind of jobs in all queues."""

    name: str
    waiting: int
    waits_in: Sequence[str]
    workers: int
    paused_in: Sequence[str]


_MOST_KINDS = 100
"""Kinds in the list of all queues."""

_MOST_NAMED = 500
"""Queues that are named beyond those that are looked at."""

_MOST_PAUSES = 20
"""Paused kinds of a queue whose jobs are counted."""


class _AskedQueue(Asked):
    name: Name
    range: RangeName = "hour"


async def show_queues(request: web.Request) -> web.Response:
    """List all queues of the latest reading."""
    reading = await console_of(request).poll.latest()
    return show_page(
        request, "queues.html", reading=reading, queues=_queues(reading), kinds=_every_kind(reading), other=OTHER,
        may_act=may_act(request), most_named=_MOST_NAMED, unknown=_has_more_promised(reading),
    )  # fmt: skip


async def show_queue(request: web.Request) -> web.Response:
    """Show one queue, and its jobs by kind."""
    asked = read_query(request, _AskedQueue)
    name = asked.name
    reading = await console_of(request).poll.latest()
    if reading.queues is not None and name not in reading.queues.queues:
        if name not in reading.known:
            raise PageError(404, "There is no such queue", "No worker serves it, and no job of it is known.")
        reading = await _look_at(console_of(request).redis, reading, name)
    queue = next((one for one in _queues(reading) if one.name == name), None)
    kinds = None if reading.queues is None else reading.queues.kinds.get(name)
    return show_page(
        request, "queue.html", reading=reading, name=name, queue=queue, kinds=kinds, may_act=may_act(request),
        rows=_kinds(reading, name, console_of(request).application.registry, await _held(request, reading, name)),
        other=OTHER, range=asked.range, unknown=_has_more_promised(reading),
        charts=await charts_of(request, reading, asked.range, name),
    )  # fmt: skip


def _has_more_promised(reading: Reading) -> bool:
    """Return whether a queue whose promised jobs were not counted may have some."""
    figures = reading.ledger.figures
    return figures is not None and figures.has_more_promised


async def _look_at(redis: Redis, reading: Reading, name: str) -> Reading:
    """Return the reading with one queue more, which it has not looked at. Some ten round trips to Redis."""
    if reading.queues is None:
        return reading
    looks = Looks()
    found = await read_queues(redis, [name], (), looks)
    shown = replace(
        reading.queues,
        queues={**reading.queues.queues, **found.queues},
        kinds={**reading.queues.kinds, **found.kinds},
        unserved=[*reading.queues.unserved, *found.unserved],
    )
    return replace(reading, queues=shown, not_seen=list(dict.fromkeys([*reading.not_seen, *looks.not_seen])))


def _queues(reading: Reading) -> list[_Queue]:
    figures, queues = reading.ledger.figures, reading.queues
    if queues is None:
        return []
    promised = {one.queue: one for one in (figures and figures.promised) or ()}
    return [
        _Queue(
            name=name,
            status=status,
            workers=queues.served[name],
            is_unserved=name in queues.unserved,
            promised=promised.get(name),
            pauses=[pause for pause in reading.pauses if pause.queue == name],
        )
        for name, status in queues.queues.items()
    ]


async def _held(request: web.Request, reading: Reading, queue: str) -> Mapping[str, int]:
    """Return how many jobs of each paused kind workers have put aside."""
    kinds = [] if reading.queues is None else [*_pauses(reading, queue)][:_MOST_PAUSES]
    return {kind: (await held_of(request, Target(queue, kind)))[0] for kind in kinds}


def _pauses(reading: Reading, queue: str) -> Mapping[str, Pause]:
    """Return those of the queue, by kind."""
    return {one.job_name: one for one in reading.pauses if one.queue == queue}


def _waiting(queues: QueueFigures | None, queue: str) -> Mapping[str, int]:
    return {} if queues is None or queue not in queues.kinds else queues.kinds[queue].waiting


def _every_kind(reading: Reading) -> list[_EveryKind]:
    """Return all kinds of which jobs wait, which are paused, or which live workers run."""
    queues = [] if reading.queues is None else list(reading.queues.queues)
    waiting = [_waiting(reading.queues, queue) for queue in queues]
    pauses = [one for one in reading.pauses if one.job_name != WHOLE]
    run = [kind for worker in reading.workers for kind in worker.said.kinds]
    names = sorted({*run, *(one.job_name for one in pauses), *(name for one in waiting for name in one)} - {WHOLE})
    return [
        _EveryKind(
            name=name,
            waiting=sum(one.get(name, 0) for one in waiting),
            waits_in=[queue for queue, one in zip(queues, waiting, strict=True) if name in one],
            workers=run.count(name),
            paused_in=[one.queue for one in pauses if one.job_name == name],
        )
        for name in names[:_MOST_KINDS]
    ]


def _kinds(reading: Reading, queue: str, registry: Registry, held: Mapping[str, int]) -> list[_Kind]:
    waiting, pauses = _waiting(reading.queues, queue), _pauses(reading, queue)
    run = [kind for worker in reading.workers if queue in worker.live.queues for kind in worker.said.kinds]
    names = dict.fromkeys([*waiting, *sorted(pauses), *sorted(run)])
    return [
        _Kind(
            name=name,
            waiting=waiting.get(name, 0),
            held=held.get(name, 0),
            workers=run.count(name),
            pause=pauses.get(name),
            limits=limits_of(registry, name),
        )
        for name in names
        if name != WHOLE
    ]


ROUTES = (page("/queues", show_queues), page("/queue", show_queue))
