"""``dead``: lists, shows, retries and discards jobs that failed for good."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import typer
from redis.asyncio import Redis
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.commands.program import program
from arqonce.commands.table import print_table
from arqonce.connection.redis import build_redis, explained
from arqonce.connection.requeue import requeue
from arqonce.database.engine import open_database
from arqonce.database.settings import DatabaseSettings
from arqonce.environment import read_duration
from arqonce.failures import is_own_code
from arqonce.ledger.dead_jobs import (
    DeadFilter,
    Shown,
    count_dead_jobs,
    dead_jobs,
    delete_dead_jobs,
    discard_step,
    list_dead_jobs,
    now_of_database,
    step_of_dead_jobs,
)
from arqonce.ledger.tables import DeadJob
from arqonce.process.exit_codes import ExitCode
from arqonce.process.lifecycle import StartupError, explain_database
from arqonce.settings.worker import QueueSettings, WorkerSettings

T = TypeVar("T")

_TELL_EVERY = timedelta(seconds=2)
"""How often a long act says how far it is."""

_NONE = "there are no such dead jobs: nothing to do"

JobIds = Annotated[list[str] | None, typer.Argument(help="Ids of dead jobs.")]
JobName = Annotated[str | None, typer.Option("--job", help="Only this job, such as create_user.")]
Reason = Annotated[str | None, typer.Option(help="Only this reason, such as invalid_payload.")]
Since = Annotated[str | None, typer.Option(help="Only those of the last 30m, 2d and so on.")]
All = Annotated[bool, typer.Option("--all", help="All that match the filters.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


def build_dead_app() -> typer.Typer:
    """Build the command group."""
    app = typer.Typer(
        no_args_is_help=True, rich_markup_mode=None, help="Jobs that failed for good: list, show, retry, discard."
    )
    commands: dict[str, Callable[..., None]] = {"list": list_, "show": show, "retry": retry, "discard": discard}
    for name, command in commands.items():
        app.command(name)(command)
    return app


def list_(
    *,
    job: JobName = None,
    reason: Reason = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, help="Most dead jobs to list.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List dead jobs, the latest first. Shows no values of fields, nor texts of exceptions; show prints them.

    For programs, in a pipe, the columns are separated by tabs; --json has the same.
    """
    letters = _ask(lambda session: list_dead_jobs(session, _filter(None, job, reason, since), limit=limit))
    if as_json:
        typer.echo(json.dumps([_summary(letter) for letter in letters]))
        return
    titles = ("job id", "job", "queue", "reason", "attempts", "died at", "explanation")
    rows = [[str(value) for value in _summary(letter).values()] for letter in letters]
    print_table(titles, rows)


def show(job_id: Annotated[str, typer.Argument(help="Id of a dead job.")]) -> None:
    """Show one dead job as JSON, with its error and its message, which may be personal data."""
    letters = _ask(lambda session: dead_jobs(session, DeadFilter(job_ids=[job_id]), limit=1))
    if not letters:
        raise _nothing()
    letter = letters[0]
    details = {
        "explanation": letter.explanation,
        "error": letter.error,
        "sqlstate": letter.sqlstate,
        "message": letter.message.decode("utf-8", "backslashreplace"),
    }
    typer.echo(json.dumps(_summary(letter) | details, ensure_ascii=False, indent=2))


def retry(  # noqa: PLR0913 - the command's options
    job_ids: JobIds = None,
    *,
    job: JobName = None,
    reason: Reason = None,
    since: Since = None,
    everything: All = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="With --all: put so many back, and say what remains.")
    ] = None,
) -> None:
    """Put dead jobs back into their queues with their ids and no attempts used; with --all, the oldest first.

    A dead letter is deleted when its job takes effect. Until then it stays, so an interrupted retry loses nothing and
    may be repeated: the job takes effect once. What dies again meanwhile is the youngest then, and is not put back by
    the same call.
    """
    which = _chosen(job_ids, job, reason, since, everything=everything)
    found: set[str] = set()
    count = asyncio.run(_retry(which, most=limit or sys.maxsize, found=None if everything else found))
    if not everything:
        _tell("put back", found, job_ids)
    elif not count:
        typer.echo(_NONE)
    else:
        remain = _ask(lambda session: count_dead_jobs(session, which)) - count if limit is not None else 0
        typer.echo(f"put back {count}" + (f"; {remain} remain: run it again" if remain > 0 else ""))


def discard(  # noqa: PLR0913 - the command's options
    job_ids: JobIds = None,
    *,
    job: JobName = None,
    reason: Reason = None,
    since: Since = None,
    everything: All = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --all: do not ask.")] = False,
) -> None:
    """Remove dead jobs for good, including their messages. With --all it asks, and in a script wants --yes."""
    which = _chosen(job_ids, job, reason, since, everything=everything)
    if everything and not (yes or _is_meant(which)):
        return
    if job_ids:
        _tell("discarded", _ask(lambda session: _discard_each(session, which, job_ids)), job_ids)
    elif count := asyncio.run(_discard(which)):
        typer.echo(f"discarded {count}")
    else:
        typer.echo(_NONE)


async def _retry(which: DeadFilter, *, most: int, found: set[str] | None) -> int:
    """Put letters back step by step; return how many. Collects their ids in ``found``."""
    progress, done, own_queue = _Progress("put back"), 0, WorkerSettings.load().default_queue
    after: tuple[datetime, str] | None = None
    async with _open_sessions() as sessions, _open_queue() as redis:
        async with sessions() as session:
            until = await now_of_database(session)
        while done < most:
            async with sessions() as session:
                step = await step_of_dead_jobs(session, which, after=after, until=until, most=most - done)
            if step is None:
                break
            await _requeue(redis, step.letters, own_queue)
            after, done = step.last, done + len(step.letters)
            if found is not None:
                found |= {letter.job_id for letter in step.letters}
            progress.tell(done)
    return done


async def _discard(which: DeadFilter) -> int:
    """Remove letters step by step, each in a transaction of its own; return how many."""
    progress, done = _Progress("discarded"), 0
    async with _open_sessions() as sessions:
        async with sessions() as session:
            until = await now_of_database(session)
        while True:
            async with sessions.begin() as session:
                removed = await discard_step(session, which, until=until)
            if not removed:
                return done
            done += removed
            progress.tell(done)


class _Progress:
    """Says on standard error how far a long act is, every few seconds."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told = time.monotonic()

    def tell(self, done: int) -> None:
        if time.monotonic() - self._told > _TELL_EVERY.total_seconds():
            self._told = time.monotonic()
            typer.echo(f"{self._what} {done:,} so far", err=True)


def _is_meant(which: DeadFilter) -> bool:
    """Ask before letters are removed; return whether there is anything to remove."""
    count = _ask(lambda session: count_dead_jobs(session, which))
    if not count:
        typer.echo(_NONE)
        return False
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"would remove {count} dead jobs for good: give --yes", param_hint="--all")
    return typer.confirm(f"remove {count} dead jobs for good?", abort=True)


async def _discard_each(session: AsyncSession, which: DeadFilter, job_ids: Sequence[str]) -> set[str]:
    """Discard each job and return the ids found. One round trip each, in the order of the ids, to prevent deadlocks."""
    return {
        job_id for job_id in sorted(set(job_ids)) if await delete_dead_jobs(session, replace(which, job_ids=[job_id]))
    }


def _tell(done: str, found: Collection[str], asked: Sequence[str] | None) -> None:
    """Print the number of jobs found; exit with 1 if there was none, or if one of the given ids was not found."""
    if found:
        typer.echo(f"{done} {len(found)}")
    elif not asked:
        raise _nothing()
    if missing := [job_id for job_id in dict.fromkeys(asked or ()) if job_id not in found]:
        for job_id in missing:
            typer.echo(f"{program()}: no dead letter: {job_id}", err=True)
        raise typer.Exit(ExitCode.FAILED)


def _nothing() -> typer.Exit:
    typer.echo(f"{program()}: no such dead job: see {program()} dead list", err=True)
    return typer.Exit(ExitCode.FAILED)


def _chosen(
    job_ids: Sequence[str] | None, job: str | None, reason: str | None, since: str | None, *, everything: bool
) -> DeadFilter:
    if bool(job_ids) == everything:
        raise typer.BadParameter("name the ids, or give --all, with or without filters")
    return _filter(job_ids, job, reason, since)


def _filter(job_ids: Sequence[str] | None, job: str | None, reason: str | None, since: str | None) -> DeadFilter:
    try:
        oldest = None if since is None else datetime.now(UTC) - read_duration(since)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None
    return DeadFilter(job_ids=job_ids or None, job_name=job, reason=reason, since=oldest)


def _summary(letter: DeadJob | Shown) -> dict[str, object]:
    return {
        "job_id": letter.job_id,
        "job_name": letter.job_name,
        "queue": letter.queue,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "died_at": letter.died_at.isoformat(timespec="seconds"),
        "explanation": letter.explanation if is_own_code(letter.reason) else "",
    }


def _ask(question: Callable[[AsyncSession], Awaitable[T]]) -> T:
    async def ask() -> T:
        async with _open_sessions() as sessions, sessions.begin() as session:
            return await question(session)

    return asyncio.run(ask())


@asynccontextmanager
async def _open_sessions() -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    settings = DatabaseSettings.load()
    async with open_database(settings, pool_size=1) as sessions:
        try:
            yield sessions
        except (SQLAlchemyError, OSError) as error:
            raise StartupError(explain_database(error, settings)) from error


@asynccontextmanager
async def _open_queue() -> AsyncIterator[Redis]:
    settings = QueueSettings.load()
    url = settings.url.get_secret_value()
    with explained(url):
        async with build_redis(url, Redis, password=settings.plain_password) as redis:
            yield redis


async def _requeue(redis: Redis, letters: Sequence[DeadJob], own_queue: str) -> None:
    by_queue: dict[str, dict[str, bytes]] = {}
    for letter in letters:
        by_queue.setdefault(letter.queue or own_queue, {})[letter.job_id] = letter.message
    for queue, messages in by_queue.items():
        await requeue(redis, queue, messages)
