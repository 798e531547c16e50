"""``users-worker status``: what is in the queue."""

import asyncio
import json
from typing import Annotated

import typer
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from jobs.connection import build_redis, explained
from jobs.queue_status import QueueStatus, read_queue_status
from worker.settings import QueueSettings, WorkerSettings


def status(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")] = False
) -> None:
    """Show how many jobs wait, are deferred and run, and how long the oldest has been waiting."""
    found = asyncio.run(_read(QueueSettings.load(), WorkerSettings.load().queue))
    age = found.oldest_waiting.total_seconds() if found.oldest_waiting is not None else None
    if as_json:
        typer.echo(json.dumps(_counts(found) | {"oldest_waiting_seconds": age}))
        return
    table = Table("waiting", "running", "deferred", "oldest waiting")
    table.add_row(*map(str, _counts(found).values()), "-" if age is None else f"{age:.1f} s")
    Console().print(table)


def _counts(found: QueueStatus) -> dict[str, int]:
    return {"waiting": found.waiting, "running": found.running, "deferred": found.deferred}


async def _read(settings: QueueSettings, queue: str) -> QueueStatus:
    url = settings.url.get_secret_value()
    async with build_redis(url, Redis, password=settings.plain_password) as redis:
        with explained(url):
            return await read_queue_status(redis, queue)
