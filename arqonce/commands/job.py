"""``job show``: tells a job's whole story, wherever it is."""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Annotated, Any

import typer
from redis.asyncio import Redis

from arqonce.application import Application
from arqonce.commands.group import build_group
from arqonce.commands.program import program
from arqonce.connection.redis import build_redis
from arqonce.database.engine import open_database
from arqonce.database.settings import DatabaseSettings
from arqonce.failures import InvalidMessageError
from arqonce.overview.job_facts import JobFacts
from arqonce.overview.job_lookup import JobLookup, data_of, name_of
from arqonce.overview.job_story import NOWHERE, Event, events_of, state_of
from arqonce.overview.looks import Looks
from arqonce.process.exit_codes import ExitCode
from arqonce.settings.worker import QueueSettings, WorkerSettings
from arqonce.wire.keys import require_job_id


def build_job_app() -> typer.Typer:
    """Build the command group."""
    return build_group({"show": show})


def show(
    context: typer.Context,
    job_id: Annotated[str, typer.Argument(help="Its id, which is its producer's key if there was one.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")] = False,
    data: Annotated[bool, typer.Option("--data", help="Also show payload and result: a person's data.")] = False,
) -> None:
    """Tell a job's story in time order: promised, queued, its failed attempts, its end, its relatives.

    Failed attempts are on record for WORKER_KEEP_ATTEMPTS; one whose worker died leaves no record. Follow-ups are found
    if their kinds are in this command's registry and their promises named no key. Payload and result are shown only
    with --data; without it, failures that are not the library's own are shown by their code. What this role or user
    may not see is said.

    Exit code 1 if no server has the job, 4 if one of them could not be asked.
    """
    try:
        require_job_id(job_id)
    except InvalidMessageError as error:
        raise typer.BadParameter(str(error)) from None
    application: Application = context.obj
    facts = asyncio.run(_gather(job_id, list(application.registry.names), with_data=data))
    events = events_of(facts, program())
    state = state_of(facts)
    if as_json:
        typer.echo(json.dumps(_as_json(facts, state, events, with_data=data), default=_plain, ensure_ascii=False))
    else:
        _print(facts, state, events, with_data=data)
    if facts.troubles:
        raise typer.Exit(ExitCode.UNAVAILABLE)
    raise typer.Exit(ExitCode.FAILED if state == "unknown" and not events else ExitCode.OK)


async def _gather(job_id: str, kinds: list[str], *, with_data: bool) -> JobFacts:
    settings, queues = QueueSettings.load(), WorkerSettings.load().queue.names
    url = settings.url.get_secret_value()
    database = DatabaseSettings.load() if DatabaseSettings.given("url") else None
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(build_redis(url, Redis, password=settings.plain_password))
        looks = Looks()
        if database is not None:
            looks.sessions = await stack.enter_async_context(open_database(database, pool_size=1))
        return await JobLookup(redis, url, queues, kinds, database).find(job_id, looks, with_data=with_data)


def _print(facts: JobFacts, state: str, events: list[Event], *, with_data: bool) -> None:
    typer.echo(f"{name_of(facts) or 'a job'} {facts.job_id}: {state}")
    for event in events:
        when = "now" if event.at is None else f"{event.at:%Y-%m-%d %H:%M:%S}"
        typer.echo(f"{when:19}  {event.text}")
        if error := event.facts.get("error"):
            typer.echo(f"{'':19}  {error}")
    if state == "unknown" and not events and not facts.troubles:
        typer.echo(NOWHERE)
    if with_data:
        typer.echo(json.dumps(data_of(facts), default=_plain, ensure_ascii=False, indent=2))
    for line in [*(f"not seen: {missed}" for missed in facts.not_seen), *facts.troubles]:
        typer.echo(line, err=True)
    if events and sys.stdout.isatty():
        typer.echo("Times are in UTC.")


def _as_json(facts: JobFacts, state: str, events: list[Event], *, with_data: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"job_id": facts.job_id, "job_name": name_of(facts), "state": state}
    said["events"] = [{"at": event.at, "event": event.event, "text": event.text} | event.facts for event in events]
    said["not_seen"], said["troubles"] = list(facts.not_seen), facts.troubles
    return said | ({"data": data_of(facts)} if with_data else {})


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
