"""``status``: shows queues, workers, promises, failures and rates, once or again and again."""

import asyncio
import json
from typing import Annotated

import typer

from arqonce.commands.status_view import json_of, print_status
from arqonce.overview.status import Status, open_status
from arqonce.process.exit_codes import ExitCode
from arqonce.settings.worker import QueueSettings, WorkerSettings


def status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every 2 seconds, until Ctrl-C.")] = False,
) -> None:
    """Show what waits and runs, which workers are alive, what has failed, and how much is done a second.

    Jobs that a pause holds count as held, and not as waiting. If WORKER_QUEUE names several queues, shows each, and how
    many workers serve it; as JSON, the sums, and each queue in "queues". Reports on standard error, or as "unserved" in
    JSON, queues in which jobs have waited for a minute and that no worker serves: of those of WORKER_QUEUE and, if
    DATABASE_URL is set, of all in which promised jobs wait.

    Also reports on standard error, or as "redis" in JSON, that Redis takes no writes; and if DATABASE_URL is set, or as
    "database" in JSON, that PostgreSQL takes none or lacks the ledger's tables. Missing tables are exit code 4; other
    outages of PostgreSQL, and a full Redis, are 0, because they pass and the queue was read. What this role or user may
    not see is said, and is no failure.

    Every figure is bounded: with a million queued jobs it takes as long as with a thousand. The kinds of waiting jobs
    are estimated from 500 messages of a queue; dead letters, failed attempts and jobs done are counted up to 10,000.
    """
    if watch:
        from arqonce.commands.status_watch import watch_status  # noqa: PLC0415 - loads rich, for a terminal

        try:
            asyncio.run(watch_status(as_json=as_json))
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.OK) from None
    found = asyncio.run(_read())
    if as_json:
        typer.echo(json.dumps(json_of(found)))
    else:
        print_status(found)
    raise typer.Exit(ExitCode.UNAVAILABLE if found.ledger.is_behind_code else ExitCode.OK)


async def _read() -> Status:
    async with open_status(QueueSettings.load(), WorkerSettings.load().queue.names) as reader:
        return await reader.read()
