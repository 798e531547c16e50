"""The doctor: examines both servers and their settings when somebody asks, and names a cure for each finding."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from aiohttp import web

from arqonce.console.core import Console, console_of
from arqonce.console.poll import Reading
from arqonce.console.responses import show_page
from arqonce.console.routes import page
from arqonce.doctor.examination import ask_all
from arqonce.doctor.finding import Check, Finding, Verdict
from arqonce.doctor.fleet import connections_of
from arqonce.doctor.postgres import Postgres
from arqonce.doctor.redis import RedisServer

_LIMIT = timedelta(seconds=3)
"""Longest time of one check."""

_IN_ALL = timedelta(seconds=8)
"""Longest time for each server: the page has 10 s."""

_OF_WORKERS = frozenset({"PostgreSQL: rights"})
"""Checks of what the role of a worker may do. The role of the console may less."""

_STATES = {
    Verdict.FAILURE: ("bad", "Fails"),
    Verdict.WARNING: ("warning", "Warning"),
    Verdict.NOT_SEEN: ("waiting", "Not seen"),
    Verdict.WELL: ("good", "Well"),
}
"""How each verdict is shown, the worst first."""


async def show_doctor(request: web.Request) -> web.Response:
    """Show what the latest examination has found: one of a few seconds ago, or a new one."""
    console = console_of(request)
    findings = await console.examination.get(lambda: _examine_both(console))
    counts = {verdict: sum(one.verdict is verdict for one in findings) for verdict in _STATES}
    return show_page(request, "doctor.html", findings=findings, states=_STATES, counts=counts)


async def _examine_both(console: Console) -> Sequence[Finding]:
    """Examine the servers, both at once; return the worst findings first."""
    reading = await console.poll.latest()
    redis = RedisServer(
        console.redis, console.settings.queue.url.get_secret_value(), console.settings.worker.queue.names
    )
    found = await asyncio.gather(
        _examine("PostgreSQL", _postgres(console, reading).checks), _examine("Redis", redis.checks)
    )
    order = list(_STATES)
    return sorted([*found[0], *found[1]], key=lambda finding: order.index(finding.verdict))


def _postgres(console: Console, reading: Reading) -> Postgres:
    """Examine for the workers that are alive, and for one if there is none."""
    registry = console.application.registry
    return Postgres(
        console.sessions,
        console.settings.database,
        schemas=registry.schemas,
        longest=registry.longest_deadline,
        connections=connections_of(
            (worker.said.slots for worker in reading.workers), otherwise=console.settings.worker.max_jobs
        ),
    )


async def _examine(server: str, checks: Sequence[Check]) -> list[Finding]:
    asked = [check for check in checks if check.name not in _OF_WORKERS]
    try:
        async with asyncio.timeout(_IN_ALL.total_seconds()):
            return await ask_all(asked, limit=_LIMIT)
    except TimeoutError:
        silence = f"the examination takes longer than {_IN_ALL.total_seconds():g} s"
        return [Finding(server, Verdict.FAILURE, silence, "the command doctor has more patience")]


ROUTES = (page("/doctor", show_doctor),)
