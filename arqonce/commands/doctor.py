"""``doctor``: examines servers, settings and the ledger; says what is wrong, and the cure."""

import asyncio
import json
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Annotated

import typer
from redis.asyncio import Redis
from redis.exceptions import RedisError

from arqonce.application import Application
from arqonce.connection.redis import build_redis
from arqonce.database.engine import open_database
from arqonce.doctor.examination import ask_all
from arqonce.doctor.finding import Finding, Verdict
from arqonce.doctor.fleet import connections_of_workers
from arqonce.doctor.local import settings_checks
from arqonce.doctor.postgres import Postgres
from arqonce.doctor.redis import RedisServer
from arqonce.process.exit_codes import ExitCode
from arqonce.settings.worker import Settings

_MARKS = {Verdict.WELL: "ok", Verdict.NOT_SEEN: "--", Verdict.WARNING: "!!", Verdict.FAILURE: "XX"}

_PROCESSES = "Worker processes to count connections for, with these settings; by default those that are alive."


def doctor(
    context: typer.Context,
    *,
    processes: Annotated[int | None, typer.Option("--processes", metavar="N", min=1, help=_PROCESSES)] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also print what is well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each check.")] = False,
) -> None:
    """Examine PostgreSQL, Redis, settings, live workers and the ledger; print each finding and its cure.

    Changes nothing, and asks each server some twenty short questions. Exit code 1 if anything fails or is to be mended,
    4 if a server cannot be used. What this role or user may not look at is said, and is no failure.
    """
    application: Application = context.obj
    settings = Settings.load(application.name)
    findings = asyncio.run(_examine(settings, application, processes))
    if as_json:
        for finding in findings:
            typer.echo(json.dumps(vars(finding)))
    else:
        _print(findings, everything=everything)
    raise typer.Exit(_exit_code(findings))


async def _examine(settings: Settings, application: Application, processes: int | None) -> list[Finding]:
    findings = settings_checks(settings, application.registry)
    async with AsyncExitStack() as stack:
        url = settings.queue.url.get_secret_value()
        redis = await stack.enter_async_context(build_redis(url, Redis, password=settings.queue.plain_password))
        sessions = await stack.enter_async_context(open_database(settings.database, pool_size=2))
        postgres = Postgres(
            sessions,
            settings.database,
            schemas=application.registry.schemas,
            longest=application.registry.longest_deadline,
            connections=await _connections(redis, settings, processes),
        )
        for checks in (postgres.checks, RedisServer(redis, url, settings.worker.queue.names).checks):
            findings += await ask_all(checks)
    return findings


async def _connections(redis: Redis, settings: Settings, processes: int | None) -> int:
    if processes is not None:
        return processes * settings.pool_size
    try:
        return await connections_of_workers(redis, otherwise=settings.worker.max_jobs)
    except (RedisError, OSError):  # the checks of Redis say why
        return settings.pool_size


def _print(findings: Sequence[Finding], *, everything: bool) -> None:
    shown = [finding for finding in findings if everything or finding.verdict is not Verdict.WELL]
    for finding in shown:
        typer.echo(f"{_MARKS[finding.verdict]} {finding.check}: {finding.value}")
        if finding.cure is not None:
            typer.echo(f"   {finding.cure}")
    well = sum(finding.verdict is Verdict.WELL for finding in findings)
    hint = "" if everything or not well else " (--all prints them)"
    typer.echo(f"{len(findings)} checks, {well} are well{hint}", err=not sys.stdout.isatty())


def _exit_code(findings: Sequence[Finding]) -> ExitCode:
    verdicts = {finding.verdict for finding in findings}
    failed = [finding.check for finding in findings if finding.verdict is Verdict.FAILURE]
    if any(check.endswith((": writes", ": migrations")) for check in failed):
        return ExitCode.UNAVAILABLE
    return ExitCode.FAILED if verdicts & {Verdict.WARNING, Verdict.FAILURE} else ExitCode.OK
