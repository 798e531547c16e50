"""Says in words what needs an operator, and the way to its cure. Asks no server."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from arqonce.console.poll import Reading
from arqonce.console.rendering import duration, link, number, sentence
from arqonce.ledger.tables import Pause, ScheduleState
from arqonce.overview.snapshot import LedgerFigures, QueueFigures
from arqonce.relay.unserved import CURE

_WAITS_LONG = timedelta(minutes=1)

_PAUSED_LONG = timedelta(hours=1)

_MOST_NAMES = 3
"""Queues that are named in one line."""


class Level(StrEnum):
    """How urgent it is."""

    NOW = "now"
    """Jobs do not run that should."""

    SOON = "soon"
    """Somebody should look at it."""

    MEANT = "meant"
    """Jobs do not run, as somebody wanted it a short time ago."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """One thing that needs attention."""

    level: Level
    title: str
    """May have names from outside: show it as such."""

    cure: str
    href: str | None = None
    """The page on which to go on."""

    where: str = ""
    """The text of that link."""

    resume: str | None = None
    """The page on which an operator can end the pause."""


def needs_of(reading: Reading) -> list[Need]:
    """Return what needs attention, the most urgent first."""
    found = [*_servers(reading)]
    if reading.queues is not None:
        found += [*_workers(reading, reading.queues), *_queues(reading.queues), *_troubles(reading.queues)]
    if reading.ledger.figures is not None:
        found += _ledger(reading, reading.ledger.figures)
    return sorted(found, key=lambda need: list(Level).index(need.level))


def _servers(reading: Reading) -> Iterator[Need]:
    if reading.redis_trouble is not None:
        yield Need(
            level=Level.NOW,
            title=f"Redis {'is away' if reading.queues is None else 'takes no writes'}: no job starts",
            cure=f"{sentence(reading.redis_trouble)} Workers wait for it and go on by themselves; no promise is lost.",
        )
    if reading.ledger.is_behind_code:
        yield Need(
            level=Level.NOW, title="Tables are missing in PostgreSQL", cure=sentence(reading.ledger.trouble or "")
        )
    elif reading.ledger.trouble is not None:
        yield Need(
            level=Level.NOW,
            title="PostgreSQL is away: no job starts",
            cure=f"{sentence(reading.ledger.trouble)} Workers wait for it and go on by themselves; no attempt is lost.",
        )


def _queues(queues: QueueFigures) -> Iterator[Need]:
    alone = queues.unserved
    for name in alone if len(alone) <= _MOST_NAMES else ():
        yield Need(
            level=Level.NOW,
            title=f"Jobs wait in {name}, which no worker serves",
            cure=sentence(CURE),
            href=link("/queue", name=name),
            where="The queue",
        )
    if len(alone) > _MOST_NAMES:
        yield Need(
            level=Level.NOW,
            title=f"Jobs wait in {number(len(alone))} queues that no worker serves: {_named(alone)}",
            cure=sentence(CURE),
            href="/queues",
            where="Queues",
        )
    for name, status in queues.queues.items():
        age = status.oldest_waiting
        if age is not None and age > _WAITS_LONG and name not in queues.unserved:
            yield Need(
                level=Level.SOON,
                title=f"A job has waited for {duration(age)} in {name}",
                cure="Start more workers, or look which jobs run for long, or which limit holds them up.",
                href="/workers",
                where="Workers",
            )


def _workers(reading: Reading, queues: QueueFigures) -> Iterator[Need]:
    if not reading.workers:
        yield Need(
            level=Level.NOW if queues.unserved else Level.SOON,
            title="No worker is alive",
            cure="Start one with the command run. Workers of arq's own class are not shown here.",
        )
    versions = {worker.said.version for worker in reading.workers if worker.said.version}
    if len(versions) > 1:
        yield Need(
            level=Level.SOON,
            title=f"Workers have different versions: {', '.join(sorted(versions))}",
            cure="This passes when a deploy has ended.",
            href="/workers",
            where="Workers",
        )
    for worker in reading.workers:
        if worker.is_silent:
            title = f"The worker {worker.where} says nothing"
            yield Need(level=Level.SOON, title=title, cure="It was killed, or its event loop hangs.",
                       href="/workers", where="Workers")  # fmt: skip
        elif worker.is_drained:
            title = f"The worker {worker.where} is drained: it takes no jobs"
            yield Need(level=Level.SOON, title=title, cure="Let it end, or let it take jobs again.",
                       href="/workers", where="Workers")  # fmt: skip


def _troubles(queues: QueueFigures) -> Iterator[Need]:
    for trouble in queues.troubles:
        yield Need(
            level=Level.SOON, title=trouble.what, cure=sentence(trouble.cure),
            href="/workers", where="Workers",
        )  # fmt: skip


def _ledger(reading: Reading, ledger: LedgerFigures) -> Iterator[Need]:
    yield from _overdue(reading, ledger)
    yield from _dead(ledger)
    yield from _paused(reading, ledger)
    yield from _paused_schedules(reading, ledger)
    for loss in ledger.losses or ():
        yield Need(
            level=Level.SOON,
            title=f"Redis was emptied, restarted or replaced {duration(reading.at - loss.noticed_at)} ago",
            cure=f"{_counted(loss.given_again, 'promised job was', 'promised jobs were')} given again. "
            "Jobs that were not promised in a transaction are lost, if Redis had not saved them.",
        )


def _overdue(reading: Reading, ledger: LedgerFigures) -> Iterator[Need]:
    unserved = () if reading.queues is None else reading.queues.unserved  # of these it is said already
    late = [one for one in ledger.promised or () if one.overdue and one.queue not in unserved]
    if not late:
        return
    overdue = sum(one.overdue for one in late)
    count = _counted(overdue, "promised job is", "promised jobs are")
    if ledger.has_more_promised:
        count = f"{number(overdue)} or more promised jobs are"
    href, where = _page_of([one.queue for one in late])
    yield Need(
        level=Level.NOW,
        title=f"{count} overdue in {_named([one.queue for one in late])}: no relay gives them to Redis",
        cure=f"Start a worker or a relay for {'this queue' if len(late) == 1 else 'these queues'}.",
        href=href,
        where=where,
    )


def _paused(reading: Reading, ledger: LedgerFigures) -> Iterator[Need]:
    """Say what is paused; of a kind that somebody has paused in many queues at once, in one line."""
    together: dict[object, list[Pause]] = {}
    for pause in ledger.pauses or ():
        act = (pause.job_name, pause.paused_at, pause.paused_by, pause.reason)
        together.setdefault(act if pause.job_name else pause.queue, []).append(pause)
    for first, *others in together.values():
        queues, since = [one.queue for one in (first, *others)], reading.at - first.paused_at
        what = f"{first.job_name} in {_named(queues)}" if first.job_name else first.queue
        href, where = _page_of(queues)
        yield Need(
            level=Level.SOON if since > _PAUSED_LONG else Level.MEANT,
            title=f"{what} has been paused for {duration(since)}",
            cure=f"{first.paused_by}: {first.reason}",
            href=href,
            where=where,
            resume=link("/queues/resume", queue=None if others else first.queue, kind=first.job_name or None),
        )


def _paused_schedules(reading: Reading, ledger: LedgerFigures) -> Iterator[Need]:
    """Say which schedules are paused; of those that somebody has paused at once, in one line."""
    together: dict[object, list[ScheduleState]] = {}
    for one in ledger.paused_schedules or ():
        together.setdefault((one.paused_at, one.paused_by, one.paused_why), []).append(one)
    for first, *others in together.values():
        since = None if first.paused_at is None else reading.at - first.paused_at
        what = "The schedules" if others else "The schedule"
        names, verb = _named([one.name for one in (first, *others)]), "have" if others else "has"
        why = f"{first.paused_by or 'somebody'}: {first.paused_why or 'without a reason'}"
        yield Need(
            level=Level.SOON if since is None or since > _PAUSED_LONG else Level.MEANT,
            title=f"{what} {names} {verb} been paused" + ("" if since is None else f" for {duration(since)}"),
            cure=f"{why.rstrip('. ')}. Slots are skipped meanwhile, and not made up for.",
            href="/schedules?paused=true",
            where="Schedules",
            resume=None if others else link("/schedules/resume", name=first.name),
        )


def _named(queues: Sequence[str]) -> str:
    return ", ".join(queues[:_MOST_NAMES]) + (", ..." if len(queues) > _MOST_NAMES else "")


def _page_of(queues: Sequence[str]) -> tuple[str, str]:
    return (link("/queue", name=queues[0]), "The queue") if len(queues) == 1 else ("/queues", "Queues")


def _dead(ledger: LedgerFigures) -> Iterator[Need]:
    letters = sum(one.letters for one in ledger.dead or ())
    last_hour = sum(one.last_hour for one in ledger.dead or ())
    if not letters:
        return
    reasons = ", ".join(f"{one.name} {number(one.letters)}" for one in (ledger.dead or ())[:3])
    counted = f"{ledger.all_dead.capitalize()} dead letter{'' if letters == 1 else 's'}"
    which, more = ("the latest: ", "" if last_hour < letters else " or more") if ledger.has_more_dead else ("", "")
    yield Need(
        level=Level.NOW if last_hour else Level.SOON,
        title=f"{counted} ({which}{reasons}), of the last hour {number(last_hour)}{more}",
        cure="Look why they have failed; mend it; put them back, or discard them.",
        href="/dead",
        where="Dead letters",
    )


def _counted(count: int, one: str, many: str) -> str:
    return f"{number(count)} {one if count == 1 else many}"
