"""``status``: shows the queue's size, and whether PostgreSQL accepts writes."""

import asyncio
import json
import os
from datetime import timedelta
from typing import Annotated

import typer
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError

from arqonce.connection.queue_status import QueueStatus, read_queue_status
from arqonce.connection.redis import build_redis, explained
from arqonce.database.engine import open_database
from arqonce.database.schema import SchemaError, require_current_schemas
from arqonce.database.settings import DatabaseSettings
from arqonce.database.writability import require_writable
from arqonce.ledger.schema import ledger_of
from arqonce.process.exit_codes import ExitCode
from arqonce.process.lifecycle import explain_database
from arqonce.settings.worker import QueueSettings, WorkerSettings

_LOOK_LIMIT = timedelta(seconds=3)
"""Longest wait for PostgreSQL. Only problems with it are reported."""


def status(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")] = False
) -> None:
    """Show how many jobs wait, are deferred and run, and how long the oldest has been waiting.

    If DATABASE_URL is set, also reports on standard error, or as "database" in JSON, that PostgreSQL does not accept
    writes or lacks the ledger's tables. Missing tables are exit code 4; an outage of PostgreSQL is 0, because it passes
    and the queue was read.
    """
    found = asyncio.run(_read(QueueSettings.load(), WorkerSettings.load().queue))
    age = found.oldest_waiting.total_seconds() if found.oldest_waiting is not None else None
    trouble, code = _trouble_of_database()
    if as_json:
        database = {} if trouble is None else {"database": trouble}
        typer.echo(json.dumps(_counts(found) | {"oldest_waiting_seconds": age} | database))
        raise typer.Exit(code)
    table = Table("waiting", "running", "deferred", "oldest waiting")
    table.add_row(*map(str, _counts(found).values()), "-" if age is None else f"{age:.1f} s")
    Console().print(table)
    if trouble is not None:
        typer.echo(trouble, err=True)
    raise typer.Exit(code)


def _counts(found: QueueStatus) -> dict[str, int]:
    return {"waiting": found.waiting, "running": found.running, "deferred": found.deferred}


async def _read(settings: QueueSettings, queue: str) -> QueueStatus:
    url = settings.url.get_secret_value()
    async with build_redis(url, Redis, password=settings.plain_password) as redis:
        with explained(url):
            return await read_queue_status(redis, queue)


def _trouble_of_database() -> tuple[str | None, ExitCode]:
    """Return the database's problem that prevents jobs from running, and the exit code; an outage is not an error.

    The problem is ``None`` if jobs can run, or if DATABASE_URL is not set.
    """
    if not os.environ.get(DatabaseSettings.variable("url")):
        return None, ExitCode.OK
    settings = DatabaseSettings.load()
    try:
        asyncio.run(_require_ready(settings))
    except SchemaError as error:
        return str(error), ExitCode.UNAVAILABLE
    except (SQLAlchemyError, OSError) as error:
        return explain_database(error, settings), ExitCode.OK
    return None, ExitCode.OK


async def _require_ready(settings: DatabaseSettings) -> None:
    async with (
        asyncio.timeout(_LOOK_LIMIT.total_seconds()),
        open_database(settings, pool_size=1) as sessions,
    ):
        async with sessions() as session:
            await require_writable(session)
        await require_current_schemas(sessions, [ledger_of(settings)])
