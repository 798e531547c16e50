"""``job show``: tells a job's whole story, wherever it is."""

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Annotated, Any

import typer
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from arqonce.application import Application
from arqonce.commands.group import build_group
from arqonce.commands.program import program
from arqonce.connection.redis import build_redis, explain
from arqonce.database.engine import open_database
from arqonce.database.settings import DatabaseSettings
from arqonce.failures import InvalidMessageError
from arqonce.overview.job_facts import JobFacts, read_ledger_facts, read_redis_facts, read_texts
from arqonce.overview.job_story import NOWHERE, Event, events_of, state_of
from arqonce.overview.looks import Looks
from arqonce.process.exit_codes import ExitCode
from arqonce.process.lifecycle import explain_database
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
    facts = JobFacts(job_id=job_id)
    settings, queues = QueueSettings.load(), WorkerSettings.load().queue.names
    url = settings.url.get_secret_value()
    async with AsyncExitStack() as stack:
        looks = Looks()
        if DatabaseSettings.given("url"):
            database = DatabaseSettings.load()
            looks.sessions = await stack.enter_async_context(open_database(database, pool_size=1))
            try:
                facts.ledger = await read_ledger_facts(looks, job_id, kinds, with_data=with_data)
            except (SQLAlchemyError, OSError) as error:
                facts.troubles.append(explain_database(error, database))
        redis = await stack.enter_async_context(build_redis(url, Redis, password=settings.plain_password))
        try:
            await read_redis_facts(redis, facts, [*queues, *_queues_of(facts)], looks)
        except (RedisError, OSError) as error:
            facts.troubles.append(str(explain(error, url)))
        facts.not_seen = looks.not_seen
    read_texts(facts)
    return facts


def _queues_of(facts: JobFacts) -> list[str]:
    ledger = facts.ledger
    if ledger is None:
        return []
    rows = [ledger.promise, ledger.letter, *ledger.attempts]
    return list(dict.fromkeys(row.queue for row in rows if row is not None and row.queue))


def _name_of(facts: JobFacts) -> str | None:
    names = sorted(facts.ledger.names) if facts.ledger is not None else []
    if facts.message is not None:
        return facts.message.name
    return names[0] if names else None if facts.answer is None else facts.answer.get("f")


def _data_of(facts: JobFacts) -> dict[str, Any]:
    message, ledger = facts.message, facts.ledger
    payload = None if message is None else message.kwargs | ({"": message.args} if message.args else {})
    result = ledger.result if ledger is not None else None
    if result is None and facts.answer is not None:
        result = facts.answer.get("r")
    return {"payload": payload, "result": result}


def _print(facts: JobFacts, state: str, events: list[Event], *, with_data: bool) -> None:
    typer.echo(f"{_name_of(facts) or 'a job'} {facts.job_id}: {state}")
    for event in events:
        when = "now" if event.at is None else f"{event.at:%Y-%m-%d %H:%M:%S}"
        typer.echo(f"{when:19}  {event.text}")
        if error := event.facts.get("error"):
            typer.echo(f"{'':19}  {error}")
    if state == "unknown" and not events and not facts.troubles:
        typer.echo(NOWHERE)
    if with_data:
        typer.echo(json.dumps(_data_of(facts), default=_plain, ensure_ascii=False, indent=2))
    for line in [*(f"not seen: {missed}" for missed in facts.not_seen), *facts.troubles]:
        typer.echo(line, err=True)
    if events and sys.stdout.isatty():
        typer.echo("Times are in UTC.")


def _as_json(facts: JobFacts, state: str, events: list[Event], *, with_data: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"job_id": facts.job_id, "job_name": _name_of(facts), "state": state}
    said["events"] = [{"at": event.at, "event": event.event, "text": event.text} | event.facts for event in events]
    said["not_seen"], said["troubles"] = list(facts.not_seen), facts.troubles
    return said | ({"data": _data_of(facts)} if with_data else {})


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
