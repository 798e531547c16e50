"""``status``: shows the size of the queues, what nobody serves, and whether PostgreSQL accepts writes."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

import typer
from redis.asyncio import Redis
from sqlalchemy.exc import SQLAlchemyError

from arqonce.commands.table import print_table
from arqonce.connection.presence import live_workers, unserved
from arqonce.connection.queue_status import QueueStatus, read_queue_status
from arqonce.connection.redis import build_redis, explained
from arqonce.database.engine import open_database
from arqonce.database.schema import SchemaError, require_current_schemas
from arqonce.database.settings import DatabaseSettings
from arqonce.database.writability import require_writable
from arqonce.ledger.outbox import queues_behind
from arqonce.ledger.schema import ledger_of
from arqonce.process.exit_codes import ExitCode
from arqonce.process.lifecycle import explain_database
from arqonce.relay.unserved import BEHIND, CURE
from arqonce.settings.worker import QueueSettings, WorkerSettings

_LOOK_LIMIT = timedelta(seconds=3)
"""Longest wait for PostgreSQL. Only problems with it are reported."""


def status(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")] = False
) -> None:
    """Show how many jobs wait, are deferred and run, and how long the oldest has been waiting.

    Jobs that a pause holds count as held, and not as waiting. If WORKER_QUEUE names several queues, shows each, and how
    many workers serve it; as JSON, the sums, and each queue in "queues". Reports on standard error, or as "unserved" in
    JSON, queues in which jobs have waited for a minute and that no worker serves: of those of WORKER_QUEUE and, if
    DATABASE_URL is set, of all in which promised jobs wait.

    If DATABASE_URL is set, also reports on standard error, or as "database" in JSON, that PostgreSQL does not accept
    writes or lacks the ledger's tables. Missing tables are exit code 4; an outage of PostgreSQL is 0, because it passes
    and the queue was read.
    """
    behind, trouble, code = _look_at_database()
    found = asyncio.run(_read(QueueSettings.load(), WorkerSettings.load().queue.names, behind))
    if as_json:
        typer.echo(json.dumps(_as_json(found) | ({} if trouble is None else {"database": trouble})))
        raise typer.Exit(code)
    print_table(*_table(found))
    for queue in found.unserved:
        typer.echo(f"jobs wait in {queue}, which no worker serves: {CURE}", err=True)
    if trouble is not None:
        typer.echo(trouble, err=True)
    raise typer.Exit(code)


@dataclass(frozen=True)
class _Found:
    queues: Mapping[str, QueueStatus]
    workers: Mapping[str, int]
    unserved: Sequence[str]


def _table(found: _Found) -> tuple[list[str], list[list[str]]]:
    """Return the titles and the rows."""
    several = len(found.queues) > 1
    has_pause = any(status.held or status.paused or status.paused_kinds for status in found.queues.values())
    rows = []
    for queue, status in found.queues.items():
        age = "-" if status.oldest_waiting is None else f"{status.oldest_waiting.total_seconds():.1f} s"
        cells = [*map(str, _counts(status).values()), age, *([_pause_of(status)] if has_pause else [])]
        rows.append([queue, *cells, str(found.workers[queue])] if several else cells)
    titles = ["waiting", "running", "deferred", "oldest waiting", *(["paused"] if has_pause else [])]
    return ["queue", *titles, "workers"] if several else titles, rows


def _pause_of(status: QueueStatus) -> str:
    what = "the queue" if status.paused else ", ".join(status.paused_kinds)
    return f"{what or '-'}: {status.held} held" if what or status.held else "-"


def _as_json(found: _Found) -> dict[str, Any]:
    each = [
        _counts(status) | {"oldest_waiting_seconds": _age_of(status)} | _pauses(status)
        for status in found.queues.values()
    ]
    ages = [age for counts in each if (age := counts["oldest_waiting_seconds"]) is not None]
    sums = {name: sum(counts[name] or 0 for counts in each) for name in ("waiting", "running", "deferred", "held")}
    said: dict[str, Any] = sums | {
        "oldest_waiting_seconds": max(ages, default=None),
        "paused": all(counts["paused"] for counts in each),
    }
    if len(each) == 1:
        said["paused_kinds"] = each[0]["paused_kinds"]
    if len(each) > 1:
        named = zip(found.queues, each, strict=True)
        said["queues"] = [{"queue": queue} | counts | {"workers": found.workers[queue]} for queue, counts in named]
    return said | ({"unserved": list(found.unserved)} if found.unserved else {})


def _age_of(found: QueueStatus) -> float | None:
    return found.oldest_waiting.total_seconds() if found.oldest_waiting is not None else None


def _pauses(found: QueueStatus) -> dict[str, Any]:
    return {"held": found.held, "paused": found.paused, "paused_kinds": list(found.paused_kinds)}


def _counts(found: QueueStatus) -> dict[str, float | None]:
    return {"waiting": found.waiting, "running": found.running, "deferred": found.deferred}


async def _read(settings: QueueSettings, queues: Sequence[str], behind: Sequence[str]) -> _Found:
    url = settings.url.get_secret_value()
    async with build_redis(url, Redis, password=settings.plain_password) as redis:
        with explained(url):
            found = {queue: await read_queue_status(redis, queue) for queue in queues}
            waiting = [queue for queue, status in found.items() if (status.oldest_waiting or timedelta(0)) > BEHIND]
            served = Counter(queue for worker in await live_workers(redis) for queue in worker.queues)
            return _Found(found, served, await unserved(redis, list(dict.fromkeys([*waiting, *behind]))))


def _look_at_database() -> tuple[Sequence[str], str | None, ExitCode]:
    """Return the queues whose promised jobs no relay has dispatched, the problem, and the exit code.

    The problem is what prevents jobs from running: ``None`` if they can run, or if DATABASE_URL is not set. An outage
    is no error.
    """
    if not os.environ.get(DatabaseSettings.variable("url")):
        return [], None, ExitCode.OK
    settings = DatabaseSettings.load()
    try:
        return asyncio.run(_require_ready(settings)), None, ExitCode.OK
    except SchemaError as error:
        return [], str(error), ExitCode.UNAVAILABLE
    except (SQLAlchemyError, OSError) as error:
        return [], explain_database(error, settings), ExitCode.OK


async def _require_ready(settings: DatabaseSettings) -> Sequence[str]:
    async with (
        asyncio.timeout(_LOOK_LIMIT.total_seconds()),
        open_database(settings, pool_size=1) as sessions,
    ):
        async with sessions() as session:
            await require_writable(session)
        await require_current_schemas(sessions, [ledger_of(settings)])
        async with sessions() as session:
            return await queues_behind(session, BEHIND)
