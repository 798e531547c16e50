"""``dead``: lists, shows, retries and discards jobs that failed for good."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.commands.asking import AsJson, By, Why, acting, ask, in_a_line, open_queue, open_sessions
from arqonce.commands.durations import duration_of
from arqonce.commands.group import build_group
from arqonce.commands.program import program
from arqonce.commands.table import print_table
from arqonce.control.dead_letters import (
    DISCARD,
    RETRY,
    DeadAct,
    begin,
    discard_steps,
    recorded,
    retry_steps,
)
from arqonce.failures import is_own_code
from arqonce.ledger.dead_jobs import (
    DeadFilter,
    Shown,
    count_by_reason,
    count_dead_jobs,
    dead_jobs,
    delete_dead_jobs,
    list_dead_jobs,
)
from arqonce.ledger.tables import DeadJob
from arqonce.process.exit_codes import ExitCode
from arqonce.settings.worker import WorkerSettings

_TELL_EVERY = timedelta(seconds=2)
"""How often a long act says how far it is."""

_SHOWN = 10
"""Most lines of a preview."""

_NONE = "there are no such dead jobs: nothing to do"

JobIds = Annotated[list[str] | None, typer.Argument(help="Ids of dead jobs.", callback=in_a_line)]
JobName = Annotated[str | None, typer.Option("--job", help="Only this job, such as create_user.")]
Reason = Annotated[str | None, typer.Option(help="Only this reason, such as invalid_payload.")]
Since = Annotated[str | None, typer.Option(help="Only those of the last 30m, 2d and so on.")]
All = Annotated[bool, typer.Option("--all", help="All that match the filters.")]
Preview = Annotated[bool, typer.Option("--preview", help="Show how many it would be, by job and reason; do nothing.")]


def build_dead_app() -> typer.Typer:
    """Build the command group."""
    commands: dict[str, Callable[..., None]] = {"list": list_, "show": show, "retry": retry, "discard": discard}
    return build_group(commands)


def list_(
    *,
    job: JobName = None,
    reason: Reason = None,
    since: Since = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="Most dead jobs to list.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List dead jobs, the latest first. Shows no values of fields, nor texts of exceptions; show prints them.

    For programs, in a pipe, the columns are separated by tabs; --json has the same.
    """
    which = _filter(None, job, reason, since)
    letters = ask(lambda session: list_dead_jobs(session, which, limit=limit))
    if as_json:
        typer.echo(json.dumps([_summary(letter) for letter in letters]))
        return
    titles = ("job id", "job", "queue", "reason", "attempts", "died at", "explanation")
    rows = [[str(value) for value in _summary(letter).values()] for letter in letters]
    print_table(titles, rows)


def show(job_id: Annotated[str, typer.Argument(help="Id of a dead job.", callback=in_a_line)]) -> None:
    """Show one dead job as JSON, with its error and its message, which may be personal data."""
    letters = ask(lambda session: dead_jobs(session, DeadFilter(job_ids=[job_id]), limit=1))
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
        int | None, typer.Option(min=1, max=1_000_000_000, help="With --all: put so many back, and say what remains.")
    ] = None,
    preview: Preview = False,
    why: Why = None,
    by: By = None,
) -> None:
    """Put dead jobs back into their queues with their ids and no attempts used; with --all, the oldest first.

    A dead letter is deleted when its job takes effect. Until then it stays, so an interrupted retry loses nothing and
    may be repeated: the job takes effect once. What dies again meanwhile is the youngest then, and is not put back by
    the same call.
    """
    which = _chosen(job_ids, job, reason, since, everything=everything)
    if preview:
        _show_preview(which)
        return
    found: set[str] = set()
    act = DeadAct(RETRY, which, acting(by), why)
    count, remain = asyncio.run(_retry(act, most=limit or sys.maxsize, found=None if everything else found))
    if not everything:
        _tell("put back", found, job_ids)
    elif not count:
        typer.echo(_NONE)
    else:
        typer.echo(f"put back {count}" + (f"; {remain} remain: run it again" if remain else ""))


def discard(  # noqa: PLR0913 - the command's options
    job_ids: JobIds = None,
    *,
    job: JobName = None,
    reason: Reason = None,
    since: Since = None,
    everything: All = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --all: do not ask.")] = False,
    preview: Preview = False,
    why: Why = None,
    by: By = None,
) -> None:
    """Remove dead jobs for good, including their messages. With --all it asks, and in a script wants --yes."""
    which = _chosen(job_ids, job, reason, since, everything=everything)
    if preview:
        _show_preview(which)
        return
    if everything and not (yes or _is_meant(which)):
        return
    act = DeadAct(DISCARD, which, acting(by), why)
    if job_ids:
        _tell("discarded", ask(lambda session: _discard_each(session, act, job_ids)), job_ids)
    elif count := asyncio.run(_discard(act)):
        typer.echo(f"discarded {count}")
    else:
        typer.echo(_NONE)


async def _retry(act: DeadAct, *, most: int, found: set[str] | None) -> tuple[int, int]:
    """Put letters back step by step; return how many, and how many more there were. Collects ids in ``found``."""
    progress, default_queue = _Progress("put back"), WorkerSettings.load().default_queue
    async with open_sessions() as sessions, open_queue() as redis:
        until = await begin(sessions)
        matching = await _count(sessions, act.which, until)  # before: jobs that take effect meanwhile have no letter
        async with recorded(act, sessions, min(most, matching), lambda: progress.done):
            steps = retry_steps(sessions, redis, act.which, until=until, default_queue=default_queue, most=most)
            async for ids in steps:
                if found is not None:
                    found.update(ids)
                progress.add(len(ids))
    return progress.done, max(0, matching - most)


async def _discard(act: DeadAct) -> int:
    """Remove letters step by step, each in a transaction of its own; return how many."""
    progress = _Progress("discarded")
    async with open_sessions() as sessions:
        until = await begin(sessions)
        number = await _count(sessions, act.which, until)
        async with recorded(act, sessions, number, lambda: progress.done):
            async for removed in discard_steps(sessions, act.which, until=until):
                progress.add(removed)
    return progress.done


async def _count(sessions: async_sessionmaker[AsyncSession], which: DeadFilter, until: datetime) -> int:
    async with sessions() as session:
        return await count_dead_jobs(session, which, until=until)


class _Progress:
    """Counts the letters of a long act, and says on standard error how far it is, every few seconds."""

    def __init__(self, what: str) -> None:
        self.done = 0
        self._what = what
        self._told = time.monotonic()

    def add(self, number: int) -> None:
        self.done += number
        if time.monotonic() - self._told > _TELL_EVERY.total_seconds():
            self._told = time.monotonic()
            typer.echo(f"{self._what} {self.done:,} so far", err=True)


def _is_meant(which: DeadFilter) -> bool:
    """Ask before letters are removed; return whether there is anything to remove."""
    count = ask(lambda session: count_dead_jobs(session, which))
    if not count:
        typer.echo(_NONE)
        return False
    _show_preview(which, err=True)
    if not sys.stdin.isatty():
        raise typer.BadParameter(f"would remove {count} dead jobs for good: give --yes", param_hint="--all")
    return typer.confirm(f"remove {count} dead jobs for good?", abort=True)


def _show_preview(which: DeadFilter, *, err: bool = False) -> None:
    """Print how many letters match, and of which jobs and reasons the most are."""
    counted = ask(lambda session: count_by_reason(session, which))
    typer.echo(f"{sum(number for *_, number in counted)} dead jobs", err=err)
    for job, reason, number in counted[:_SHOWN]:
        typer.echo(f"{number:>10} {job or '-'} {reason}", err=err)
    if len(counted) > _SHOWN:
        typer.echo(f"and {len(counted) - _SHOWN} more kinds and reasons", err=err)


async def _discard_each(session: AsyncSession, act: DeadAct, job_ids: Sequence[str]) -> set[str]:
    """Discard each job and return the ids found. One round trip each, in the order of the ids, to prevent deadlocks."""
    found = {
        job_id
        for job_id in sorted(set(job_ids))
        if await delete_dead_jobs(session, replace(act.which, job_ids=[job_id]))
    }
    await act.record(session, len(found))
    return found


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
    oldest = None if since is None else datetime.now(UTC) - duration_of("--since", since)
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
