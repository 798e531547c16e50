"""``workers``: lists live workers, and lets one of them take no more jobs."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from arqonce.commands.asking import AsJson, By, Why, acting, ask, in_a_line, open_queue
from arqonce.commands.group import build_group
from arqonce.commands.program import program
from arqonce.commands.table import print_table
from arqonce.connection.presence import LiveWorker
from arqonce.connection.worker_troubles import troubles_of
from arqonce.control.workers import Doing, Seen, give_order, matching, read_workers, record_order
from arqonce.process.exit_codes import ExitCode

_ID_SHOWN = 8
"""Characters of a worker's id in the table; any unambiguous beginning of the id names the worker."""

Worker = Annotated[
    str, typer.Argument(help="Its id or the beginning of it, or HOST:PID, as the list has them.", callback=in_a_line)
]


def build_workers_app() -> typer.Typer:
    """Build the command group."""
    commands: dict[str, Callable[..., None]] = {"list": list_, "drain": drain, "undrain": undrain}
    return build_group(commands)


def list_(*, as_json: AsJson = False) -> None:
    """List the workers that are alive: where they run, what they serve, and which jobs they run since when.

    Each process of run --processes is one. A killed worker is listed for 90 s. Workers of arq's own class are not
    listed. On standard error it says whose clock is off, and what has blocked an event loop. For programs, in a pipe,
    the columns are separated by tabs; --json has kinds and running jobs, too.
    """
    found = asyncio.run(_read())
    if as_json:
        typer.echo(json.dumps([_summary(worker, doing) for worker, doing in found], ensure_ascii=False))
        return
    titles = ("worker", "host:pid", "queues", "state", "running", "longest", "rss", "started", "version", "last seen")
    print_table(titles, [_cells(worker, doing) for worker, doing in found])
    for trouble in troubles_of(found):
        typer.echo(f"{trouble.what}: {trouble.cure}", err=True)


def drain(name: Worker, *, why: Why = None, by: By = None) -> None:
    """Let a worker take no more jobs. Its running jobs end; it stays alive, until undrain or its own end.

    It obeys within 5 s. It is an order to the process: one that is started in its place works.
    """
    _order(name, quiet=True, who=acting(by), why=why)


def undrain(name: Worker, *, why: Why = None, by: By = None) -> None:
    """Let a drained worker take jobs again."""
    _order(name, quiet=False, who=acting(by), why=why)


def _order(name: str, *, quiet: bool, who: str, why: str | None) -> None:
    worker = _the_one(name, [worker for worker, _ in asyncio.run(_read())])
    ask(lambda session: record_order(session, worker, quiet=quiet, who=who, why=why))
    doing = asyncio.run(_give(worker, quiet=quiet))
    where = f"{worker.host}:{worker.pid}"
    if doing is None:
        typer.echo(f"{program()}: {where} has not answered yet: see {program()} workers list", err=True)
        raise typer.Exit(ExitCode.FAILED)
    takes = "takes no more jobs" if quiet else "takes jobs again"
    typer.echo(f"{where} {takes}; it runs {doing['running']}")


def _the_one(name: str, workers: Sequence[LiveWorker]) -> LiveWorker:
    found = matching(name, workers)
    if len(found) != 1:
        which = "several workers match" if found else "no live worker is"
        typer.echo(f"{program()}: {which} {name}: see {program()} workers list", err=True)
        raise typer.Exit(ExitCode.FAILED)
    return found[0]


async def _read() -> list[Seen]:
    async with open_queue() as redis:
        return await read_workers(redis)


async def _give(worker: LiveWorker, *, quiet: bool) -> Doing | None:
    async with open_queue() as redis:
        return await give_order(redis, worker, quiet=quiet)


def _summary(worker: LiveWorker, doing: Doing | None) -> dict[str, Any]:
    said: dict[str, Any] = {"id": worker.id, "host": worker.host, "pid": worker.pid, "queues": list(worker.queues)}
    doing = doing or {}
    for key in ("state", "version", "kinds", "slots", "running"):
        said[key] = doing.get(key)
    said["jobs"] = [job | {"since": _time(job.get("since"))} for job in doing.get("jobs", [])]
    return said | {
        "rss_bytes": doing.get("rss"),
        "started": _time(doing.get("started")),
        "last_seen_seconds": doing.get("seen"),
        "clock_offset_seconds": doing.get("clock_offset"),
        "block": doing.get("block"),
    }


def _cells(worker: LiveWorker, doing: Doing | None) -> list[str]:
    known = doing or {}
    jobs, rss, seen = known.get("jobs") or [], known.get("rss"), known.get("seen")
    longest = "-"
    if jobs and isinstance(since := jobs[0].get("since"), int | float):
        longest = f"{jobs[0].get('job_name')} {max(0.0, time.time() - since):.1f} s"
    return [
        worker.id[:_ID_SHOWN],
        f"{worker.host}:{worker.pid}",
        ",".join(worker.queues),
        str(known.get("state", "-")),
        f"{known.get('running', '-')} of {known.get('slots', '-')}",
        longest,
        "-" if rss is None else f"{rss / 1e6:.0f} MB",
        _time(known.get("started")) or "-",
        str(known.get("version") or "-"),
        "-" if seen is None else f"{seen:.0f} s ago",
    ]


def _time(moment: object) -> str | None:
    if not isinstance(moment, int | float):
        return None
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
