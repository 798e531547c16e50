"""``queue``: pauses and resumes queues and kinds of jobs, and lists what is paused."""

import asyncio
import difflib
import json
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import timedelta
from typing import Annotated

import typer

from arqonce.commands.asking import AsJson, By, Why, acting, ask, in_bounds, open_queue, open_sessions
from arqonce.commands.durations import duration_of
from arqonce.commands.group import build_group
from arqonce.commands.program import program
from arqonce.commands.table import print_table
from arqonce.connection.presence import kinds_of
from arqonce.control import queues
from arqonce.control.queues import Target
from arqonce.failures import QueueUnavailableError
from arqonce.ledger import pauses
from arqonce.ledger.tables import Pause
from arqonce.process.exit_codes import ExitCode
from arqonce.settings.worker import WorkerSettings
from arqonce.wire.bounds import NAME_RULE, is_name

Queue = Annotated[str | None, typer.Argument(help="The queue; by default that of WORKER_QUEUE.")]
Kind = Annotated[str | None, typer.Option("--kind", help="Only this job, such as create_user.")]


def build_queue_app() -> typer.Typer:
    """Build the command group."""
    commands: dict[str, Callable[..., None]] = {"pause": pause, "resume": resume, "list": list_}
    return build_group(commands)


def pause(
    queue: Queue = None,
    *,
    reason: Annotated[str, typer.Option(help="Why, for others to read.", callback=in_bounds)],
    kind: Kind = None,
    length: Annotated[str | None, typer.Option("--for", help="End it after a time such as 2h; else resume it.")] = None,
    by: By = None,
) -> None:
    """Start no more jobs of a queue, or of one kind in it. Running jobs end; waiting ones stay, uncounted.

    Recorded in PostgreSQL: neither restarts, nor deploys, nor a loss of Redis end it. Producers and schedules go on.
    Workers of arq's own class do not obey. A second pause of the same replaces the first one's reason and end.
    """
    if not reason.strip():
        raise typer.BadParameter("is empty: say why, for others to read", param_hint="--reason")
    target, who, lasts = Target(_queue(queue), _kind(kind)), acting(by), _length(length)
    until = ask(lambda session: queues.pause(session, target, reason=reason, who=who, length=lasts))
    _tell_workers(target)
    if target.job_name:
        _warn_of(target)
    ends = "until it is resumed" if until is None else f"until {until.isoformat(timespec='seconds')}"
    typer.echo(f"paused {target} {ends}")


def resume(queue: Queue = None, *, kind: Kind = None, why: Why = None, by: By = None) -> None:
    """End a pause: jobs that wait start again, in their order. Without --kind, that of the queue as a whole."""
    target, who = Target(_queue(queue), _kind(kind)), acting(by)
    was_paused = ask(lambda session: queues.resume(session, target, who=who, why=why))
    _tell_workers(target)
    if not was_paused:
        typer.echo(f"{program()}: {target} is not paused: see {program()} queue list", err=True)
        raise typer.Exit(ExitCode.FAILED)
    typer.echo(f"resumed {target}")


def list_(*, as_json: AsJson = False) -> None:
    """List what is paused: since when, by whom, until when, and why.

    For programs, in a pipe, the columns are separated by tabs; --json has the same.
    """
    found = [_summary(row) for row in ask(pauses.list_pauses)]
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
        return
    titles = ("queue", "job", "since", "by", "until", "reason")
    print_table(titles, [[str(value or "-") for value in row.values()] for row in found])


def _summary(row: Pause) -> dict[str, str | None]:
    return {
        "queue": row.queue,
        "job_name": row.job_name or None,
        "paused_at": row.paused_at.isoformat(timespec="seconds"),
        "paused_by": row.paused_by,
        "until": None if row.until is None else row.until.isoformat(timespec="seconds"),
        "reason": row.reason,
    }


def _queue(name: str | None) -> str:
    if name is None:
        names = WorkerSettings.load().queue.names
        if len(names) > 1:
            raise typer.BadParameter(f"WORKER_QUEUE has several: name one of {', '.join(names)}", param_hint="QUEUE")
        return names[0]
    if not is_name(name):
        raise typer.BadParameter(f"has not {NAME_RULE}", param_hint="QUEUE")
    return name


def _kind(name: str | None) -> str:
    if name is not None and not is_name(name):
        raise typer.BadParameter(f"has not {NAME_RULE}", param_hint="--kind")
    return name or pauses.WHOLE


def _length(text: str | None) -> timedelta | None:
    length = None if text is None else duration_of("--for", text)
    if length is not None and length <= timedelta(0):
        raise typer.BadParameter("must be longer than zero", param_hint="--for")
    return length


def _tell_workers(target: Target) -> None:
    """Write what is recorded into Redis. If Redis is away, relays do it as soon as it is back: say so."""

    async def tell() -> None:
        async with open_sessions() as sessions, open_queue() as redis:
            await queues.tell_workers(redis, sessions, [target.queue])

    try:
        asyncio.run(tell())
    except QueueUnavailableError as error:
        typer.echo(f"{program()}: recorded, but workers do not know yet: {error}", err=True)


def _warn_of(target: Target) -> None:
    """Say so if no live worker runs this kind: it may be misspelt, or of a release to come."""

    async def read() -> Collection[str] | None:
        async with open_queue() as redis:
            return await kinds_of(redis, target.queue)

    with suppress(QueueUnavailableError):  # this was said already
        known, kind = asyncio.run(read()), target.job_name
        if known is None or kind in known:
            return
        meant = difflib.get_close_matches(kind, known, n=1)
        cure = f". Did you mean {meant[0]}?" if meant else f": they run {', '.join(sorted(known))}" if known else ""
        typer.echo(f"{program()}: no live worker of {target.queue} runs {kind}{cure}", err=True)
