"""How ``status`` looks: as a table with lines below it, and as JSON. Asks no server."""

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import typer

from arqonce.commands.table import print_table
from arqonce.connection.queue_status import QueueStatus
from arqonce.ledger.overview import MOST_READ
from arqonce.ledger.schedule_control import UNTIL_RESUMED
from arqonce.overview.snapshot import LedgerFigures
from arqonce.overview.status import Status
from arqonce.relay.unserved import CURE

_MOST_NAMED = 8
"""Most kinds, reasons and codes in one line; JSON has them all."""

_MOST_LINES = 20
"""Most lines about pauses, schedules, or one kind of complaint; JSON has them all."""


def print_status(status: Status) -> None:
    """Print it; what is to be mended goes to standard error."""
    print_table(*table_of(status))
    typer.echo()
    lines = lines_of(status)
    width = max(len(name) for name, _ in lines) if sys.stdout.isatty() else 0
    for name, value in lines:
        typer.echo(f"{name:{width}}  {value}" if width else f"{name}\t{value}")
    for complaint in complaints_of(status):
        typer.echo(complaint, err=True)


def table_of(status: Status) -> tuple[list[str], list[list[str]]]:
    """Return the titles and the rows: one for each queue."""
    queues = status.queues.queues
    several = len(queues) > 1
    has_pause = any(found.held or found.paused or found.paused_kinds for found in queues.values())
    rows = []
    for queue, found in queues.items():
        age = "-" if found.oldest_waiting is None else f"{found.oldest_waiting.total_seconds():.1f} s"
        cells = [*map(str, _counts(found).values()), age, *([_pause_of(found)] if has_pause else [])]
        rows.append([queue, *cells, str(status.queues.served[queue])] if several else cells)
    titles = ["waiting", "running", "deferred", "oldest waiting", *(["paused"] if has_pause else [])]
    return ["queue", *titles, "workers"] if several else titles, rows


def _pause_of(found: QueueStatus) -> str:
    what = "the queue" if found.paused else ", ".join(found.paused_kinds)
    return f"{what or '-'}: {found.held} held" if what or found.held else "-"


def lines_of(status: Status) -> list[tuple[str, str]]:
    """Return what else there is to say, each with its name."""
    found = status.queues
    hosts = len({worker.host for worker in found.workers})
    lines = [("workers alive", f"{len(found.workers)} on {hosts} {'host' if hosts == 1 else 'hosts'}")]
    for queue, kinds in found.kinds.items():
        if kinds.waiting:
            where = f" in {queue}" if len(found.kinds) > 1 else ""
            how = f", estimated from {kinds.read:,} of {kinds.of:,}" if kinds.is_estimate else ""
            lines.append((f"waiting by kind{where}", _listed(kinds.waiting.items()) + how))
    return lines + ([] if status.ledger.figures is None else _lines_of_ledger(status.ledger.figures))


def _lines_of_ledger(ledger: LedgerFigures) -> list[tuple[str, str]]:
    lines = []
    if ledger.promised is not None:
        by_queue = [(one.queue, f"{one.promised:,}{' or more' if one.is_more else ''}") for one in ledger.promised]
        late = _listed([(one.queue, one.overdue) for one in ledger.promised if one.overdue])
        told = f": {_listed(by_queue)}" if len(by_queue) > 1 else ""
        overdue = f"{ledger.all_overdue} overdue{f' ({late})' if late else ''}"
        lines.append(("promised", f"{ledger.all_promised}, {overdue}{told}"))
    if ledger.done is not None:
        refused = sum(one.refused for one in ledger.done)
        rates = [(one.job_name, f"{one.per_second:.1f}") for one in ledger.done]
        text = f"{sum(one.per_second for one in ledger.done):.1f}" + (f": {_listed(rates)}" if rates else "")
        lines.append(("done a second, of late", text + (f"; {refused:,} refused" if refused else "")))
    if ledger.failed is not None:
        lines.append(
            ("failed attempts in the last hour", _total_and_each([(one.name, one.attempts) for one in ledger.failed]))
        )
    if ledger.dead is not None:
        last_hour = sum(one.last_hour for one in ledger.dead)
        named = ("; the latest: " if ledger.has_more_dead else ": ") + _listed(
            (one.name, one.letters) for one in ledger.dead
        )
        lines.append(
            ("dead letters", f"{ledger.all_dead}{named}; {last_hour:,} in the last hour" if ledger.dead else "0")
        )
    return [*lines, *_pause_lines(ledger), *_loss_lines(ledger)]


def _pause_lines(ledger: LedgerFigures) -> list[tuple[str, str]]:
    pauses, schedules = ledger.pauses or (), ledger.paused_schedules or ()
    lines = []
    for pause in pauses[:_MOST_LINES]:
        what = f"{pause.queue} {pause.job_name}".strip()
        until = "resumed" if pause.until is None else _time(pause.until)
        lines.append(
            (f"paused: {what}", f"since {_time(pause.paused_at)} until {until}, {pause.paused_by}: {pause.reason}")
        )
    if len(pauses) > _MOST_LINES:
        lines.append(("paused", f"{len(pauses) - _MOST_LINES:,} more: see queue list"))
    for schedule in schedules[:_MOST_LINES]:
        end, by, why = (
            schedule.paused_until,
            schedule.paused_by or "somebody",
            schedule.paused_why or "without a reason",
        )
        until = "resumed" if end is None or end == UNTIL_RESUMED else _time(end)
        lines.append((f"paused: the schedule {schedule.name}", f"until {until}, {by}: {why}"))
    if len(schedules) > _MOST_LINES:
        lines.append(("paused schedules", f"{len(schedules) - _MOST_LINES:,} more: see schedules list"))
    return lines


def _loss_lines(ledger: LedgerFigures) -> list[tuple[str, str]]:
    lines = []
    for loss in ledger.losses or ():
        again = f"{loss.given_again:,} promised jobs given again"
        lines.append(("Redis was emptied, restarted or replaced", f"{_time(loss.noticed_at)}: {again}"))
    return lines


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _total_and_each(counts: Sequence[tuple[str, int]]) -> str:
    total = sum(number for _, number in counts)
    return _up_to(total, MOST_READ) + (f": {_listed(counts)}" if counts else "")


def _up_to(number: int, most: int) -> str:
    return f"{number:,}" + (" or more" if number >= most else "")


def _listed(counts: Iterable[tuple[str, object]]) -> str:
    named = [f"{name} {number:,}" if isinstance(number, int) else f"{name} {number}" for name, number in counts]
    return ", ".join(named[:_MOST_NAMED]) + (", ..." if len(named) > _MOST_NAMED else "")


_SUMMED = ("waiting", "running", "deferred", "parked", "held")


def complaints_of(status: Status) -> list[str]:
    """Return what is to be mended, or could not be seen."""
    served = _some([f"jobs wait in {queue}, which no worker serves: {CURE}" for queue in status.queues.unserved])
    trouble = [one for one in (status.redis_trouble, status.ledger.trouble) if one is not None]
    workers = _some([f"{one.what}: {one.cure}" for one in status.queues.troubles])
    return [*served, *trouble, *workers, *(f"not seen: {missed}" for missed in status.not_seen)]


def _some(complaints: Sequence[str]) -> list[str]:
    more = len(complaints) - _MOST_LINES
    return [*complaints[:_MOST_LINES], *([f"and {more:,} more like this: status --json has them"] if more > 0 else [])]


def json_of(status: Status) -> dict[str, Any]:
    """Return all of it for scripts. Keys stay; what could not be seen is missing, and named in ``not_seen``."""
    found = status.queues
    each = [_counts(one) | {"oldest_waiting_seconds": _age_of(one)} | _pauses(one) for one in found.queues.values()]
    ages = [age for counts in each if (age := counts["oldest_waiting_seconds"]) is not None]
    sums = {name: sum(counts[name] or 0 for counts in each) for name in _SUMMED}
    said: dict[str, Any] = sums | {
        "oldest_waiting_seconds": max(ages, default=None),
        "paused": all(counts["paused"] for counts in each),
        "workers": len(found.workers),
    }
    if len(each) == 1:
        said["paused_kinds"] = each[0]["paused_kinds"]
    if len(each) > 1:
        named = zip(found.queues, each, strict=True)
        said["queues"] = [{"queue": queue} | counts | {"workers": found.served[queue]} for queue, counts in named]
    said["kinds"] = [
        {"queue": queue, "job": job, "waiting": number, "is_estimate": kinds.is_estimate}
        for queue, kinds in found.kinds.items()
        for job, number in kinds.waiting.items()
    ]
    said |= {} if status.ledger.figures is None else _json_of_ledger(status.ledger.figures)
    said |= {"unserved": list(found.unserved)} if found.unserved else {}
    said |= {"worker_troubles": [one._asdict() for one in found.troubles]} if found.troubles else {}
    said |= {"not_seen": list(status.not_seen)} if status.not_seen else {}
    said |= {} if status.redis_trouble is None else {"redis": status.redis_trouble}
    return said | ({} if status.ledger.trouble is None else {"database": status.ledger.trouble})


def _json_of_ledger(ledger: LedgerFigures) -> dict[str, Any]:
    said: dict[str, Any] = {}
    if ledger.promised is not None:
        said["promised"] = sum(one.promised for one in ledger.promised)
        said["overdue"] = sum(one.overdue for one in ledger.promised)
        said |= {"has_more_promised": True} if ledger.has_more_promised else {}
        said["promised_by_queue"] = [one._asdict() for one in ledger.promised]
    if ledger.done is not None:
        said["done_per_second"] = round(sum(one.per_second for one in ledger.done), 3)
        said["done_by_job"] = [
            {"job": one.job_name, "per_second": round(one.per_second, 3), "refused": one.refused} for one in ledger.done
        ]
    if ledger.failed is not None:
        said["failed_attempts_last_hour"] = sum(one.attempts for one in ledger.failed)
        codes = _summed((one.code, one.attempts) for one in ledger.failed)
        said["failed_attempts_by_code"] = [{"code": code, "attempts": number} for code, (number,) in codes.items()]
        said["failed_attempts_by_job"] = [
            {"job": one.job_name, "code": one.code, "attempts": one.attempts} for one in ledger.failed
        ]
    if ledger.dead is not None:
        said["dead"] = sum(one.letters for one in ledger.dead)
        said["dead_last_hour"] = sum(one.last_hour for one in ledger.dead)
        reasons = _summed((one.reason, one.letters, one.last_hour) for one in ledger.dead)
        said["dead_by_reason"] = [
            {"reason": reason, "letters": letters, "last_hour": lately} for reason, (letters, lately) in reasons.items()
        ]
        said["dead_by_job"] = [
            {"job": one.job_name, "reason": one.reason, "letters": one.letters, "last_hour": one.last_hour}
            for one in ledger.dead
        ]
    if ledger.pauses is not None:
        said["pauses"] = [
            {
                "queue": pause.queue,
                "job": pause.job_name or None,
                "since": pause.paused_at.isoformat(),
                "until": None if pause.until is None else pause.until.isoformat(),
                "by": pause.paused_by,
                "reason": pause.reason,
            }
            for pause in ledger.pauses
        ]
    if ledger.paused_schedules is not None:
        said["paused_schedules"] = [schedule.name for schedule in ledger.paused_schedules]
    if ledger.estimates is not None:
        said["estimates"] = ledger.estimates._asdict()
    if ledger.losses is not None:
        said["redis_losses"] = [
            {"noticed_at": loss.noticed_at.isoformat(), "given_again": loss.given_again} for loss in ledger.losses
        ]
    return said


def _summed(counts: Iterable[tuple[Any, ...]]) -> dict[str, list[int]]:
    """Return the sums of the numbers of each name, the largest first."""
    sums: dict[str, list[int]] = {}
    for name, *numbers in counts:
        sums[name] = [a + b for a, b in zip(sums.get(name, [0] * len(numbers)), numbers, strict=True)]
    return dict(sorted(sums.items(), key=lambda one: -one[1][0]))


def _age_of(found: QueueStatus) -> float | None:
    return found.oldest_waiting.total_seconds() if found.oldest_waiting is not None else None


def _pauses(found: QueueStatus) -> dict[str, Any]:
    aside = {"parked": found.parked, "held": found.held}
    return aside | {"paused": found.paused, "paused_kinds": list(found.paused_kinds)}


def _counts(found: QueueStatus) -> dict[str, float | None]:
    return {"waiting": found.waiting, "running": found.running, "deferred": found.deferred}
