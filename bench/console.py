"""Fills servers as years of work do, and measures how quick the console's pages are: ``python -m bench.console``."""

import argparse
import asyncio
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import aiohttp
from aiohttp import web
from pydantic import SecretStr
from sqlalchemy import Engine, event
from yarl import URL

from arqonce.console.access import Role, TokenRights, hash_of
from arqonce.console.application import build_app
from arqonce.console.core import Console
from arqonce.console.server import listen, open_console
from arqonce.console.settings import ConsoleSettings, Settings
from arqonce.console.shared import Shared
from arqonce.database.settings import DatabaseSettings
from arqonce.ledger.dead_jobs import DeadFilter, oldest_dead_jobs
from arqonce.settings.worker import QueueSettings, WorkerSettings
from bench.console_data import Amounts, fill_postgres, fill_redis
from bench.servers import BenchServers, open_bench_servers
from worker.application import APPLICATION

_TOKEN = "a token of the benchmark alone"  # noqa: S105 - opens a console on loopback while it is measured

_PAGES = {
    "overview": "/",
    "queues": "/queues",
    "queue, with charts of an hour": "/queue?name=arq:queue",
    "queue, with charts of a day": "/queue?name=arq:queue&range=day",
    "jobs waiting": "/jobs?state=waiting",
    "jobs waiting, of a rare kind": "/jobs?state=waiting&kind=rare",
    "jobs deferred": "/jobs?state=deferred",
    "jobs promised": "/jobs?state=promised",
    "jobs done": "/jobs?state=done",
    "jobs done, of a rare kind": "/jobs?state=done&kind=rare",
    "jobs refused": "/jobs?state=refused",
    "jobs dead": "/jobs?state=dead",
    "a job that is done": "/job?id=done-0000005000",
    "a job that waits": "/job?id=queued-0000005000",
    "a job that is promised": "/job?id=promised-0000005000",
    "jobs whose id begins so": "/jobs/find?id=done-00000",
    "dead letters in groups": "/dead",
    "dead letters of a group": "/dead/letters?kind=kind3&code=OddError",
    "dead letters with a reason": "/dead/letters?code=rare",
    "preview of a retry of all": "/dead/retry",
    "preview of a retry of a group": "/dead/retry?kind=kind3&code=OddError",
    "schedules": "/schedules",
    "workers": "/workers",
    "audit": "/audit",
    "audit of a person": "/audit?who=jane",
    "audit of a rare act": "/audit?act=queue+resume",
    "doctor": "/doctor",
}

_ACTS = {
    "all dead letters": DeadFilter(),
    "a group": DeadFilter(job_name="kind3", reason="OddError"),
    "a rare reason": DeadFilter(reason="rare"),
}

_FOLLOWED = ("jobs waiting", "jobs promised", "jobs done", "dead letters of a group")
"""Lists whose hundredth page is measured, too."""

_DEEP = 100


@dataclass(frozen=True)
class _Measured:
    name: str
    seconds: Sequence[float]
    cpu: float
    """CPU time of one request, in seconds: of the console and of the client, which are one process."""
    is_right: bool

    @property
    def p95(self) -> float:
        """Milliseconds within which 95 % were answered."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[math.ceil(0.95 * len(ordered)) - 1]

    @property
    def median(self) -> float:
        """Milliseconds within which half were answered."""
        return 1000 * statistics.median(self.seconds)


class _DatabaseTime:
    """Adds up how long statements of all engines take, as their client sees it."""

    def __init__(self) -> None:
        self.seconds, self._began = 0.0, 0.0
        event.listen(Engine, "before_cursor_execute", self._begin)
        event.listen(Engine, "after_cursor_execute", self._end)

    def _begin(self, *_: object) -> None:
        self._began = time.perf_counter()

    def _end(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began


def main() -> None:
    """Fill, measure, and print a table."""
    arguments = _arguments()
    amounts = Amounts(
        receipts=arguments.receipts, dead=arguments.dead, promised=arguments.promised, queued=arguments.queued
    )
    with (
        tempfile.TemporaryDirectory(prefix="arqonce-bench-") as folder,
        open_bench_servers(Path(folder)) as servers,
    ):
        asyncio.run(_fill(servers, amounts))
        asyncio.run(_run(servers, arguments.rounds))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.console", description=__doc__)
    parser.add_argument("--receipts", type=int, default=10_000_000)
    parser.add_argument("--dead", type=int, default=1_000_000)
    parser.add_argument("--promised", type=int, default=1_000_000)
    parser.add_argument("--queued", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=20, help="requests of each page, after one that is not measured")
    return parser.parse_args()


async def _fill(servers: BenchServers, amounts: Amounts) -> None:
    began = time.monotonic()
    await fill_postgres(servers.postgres.url, amounts)
    await fill_redis(servers.valkey.url, amounts)
    _say(f"filled in {time.monotonic() - began:.0f} s: {amounts}")


async def _run(servers: BenchServers, rounds: int) -> None:
    rights = TokenRights(sha256=hash_of(_TOKEN), role=Role.OPERATOR)
    settings = Settings(
        DatabaseSettings(url=SecretStr(servers.postgres.url)),
        QueueSettings(url=SecretStr(servers.valkey.url)),
        WorkerSettings(),
        ConsoleSettings(port=0, tokens={"bench": rights}),
    )
    async with AsyncExitStack() as stack:
        console = await stack.enter_async_context(open_console(settings, APPLICATION))
        console = replace(console, examination=Shared(timedelta(0)))  # each look at the doctor's page examines anew
        runner = web.AppRunner(build_app(console), access_log=None, shutdown_timeout=1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        url = (await listen(runner, settings)).rstrip("/")
        http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)))
        await http.post(f"{url}/log-in", data={"token": _TOKEN}, headers={"Origin": url})
        measured = [await _measure(http, url, name, path, rounds) for name, path in _PAGES.items()]
        for name in _FOLLOWED:
            path = await _deep(http, url, _PAGES[name])
            measured.append(await _measure(http, url, f"{name}, page {_DEEP}", path, rounds))
        polls = await _measure_poll(console, rounds)
        others = {"database time of one poll": polls}
        for name, which in _ACTS.items():
            others[f"a step of 500 of a retry of {name}"] = await _measure_steps(console, which, rounds)
    _print(measured, others)


async def _measure(http: aiohttp.ClientSession, url: str, name: str, path: str, rounds: int) -> _Measured:
    seconds, is_right, began_cpu = [], True, time.process_time()
    for _ in range(rounds + 1):
        began = time.perf_counter()
        async with http.get(URL(url + path, encoded=True)) as response:
            await response.read()
            is_right = is_right and response.status == 200
        seconds.append(time.perf_counter() - began)
    found = _Measured(name, seconds[1:], (time.process_time() - began_cpu) / len(seconds), is_right)
    _say(f"{name}: p95 {found.p95:.0f} ms{'' if is_right else ', NOT ANSWERED'}")
    return found


async def _deep(http: aiohttp.ClientSession, url: str, path: str) -> str:
    """Follow the pages of a list."""
    for _ in range(_DEEP - 1):
        async with http.get(URL(url + path, encoded=True)) as response:
            text = await response.text()
        _, _, rest = text.partition('rel="next" href="')
        if not rest:
            break
        path = rest.partition('"')[0].replace("&amp;", "&")
    return path


async def _measure_poll(console: Console, rounds: int) -> Sequence[float]:
    """Return how long the statements of each poll took, together, in ms."""
    spent, times = _DatabaseTime(), []
    for _ in range(rounds):
        console.poll.ask_anew()
        before = spent.seconds
        await console.poll.next()
        times.append(1000 * (spent.seconds - before))
    return times


async def _measure_steps(console: Console, which: DeadFilter, rounds: int) -> Sequence[float]:
    """Return how long PostgreSQL took to find each of the first letters to put back, in ms."""
    times, after = [], None
    for _ in range(rounds):
        async with console.sessions() as session:
            began = time.perf_counter()
            places = await oldest_dead_jobs(session, which, after=after, most=500)
            times.append(1000 * (time.perf_counter() - began))
        if not places:
            break
        after = places[-1]
    return times


def _print(measured: Sequence[_Measured], others: Mapping[str, Sequence[float]]) -> None:
    sys.stdout.write("| page | median, ms | p95, ms | CPU, ms |\n|---|---:|---:|---:|\n")
    for one in measured:
        name = one.name if one.is_right else f"{one.name} (not answered)"
        sys.stdout.write(f"| {name} | {one.median:.0f} | {one.p95:.0f} | {1000 * one.cpu:.0f} |\n")
    for name, times in others.items():
        last = sorted(times)[math.ceil(0.95 * len(times)) - 1]
        sys.stdout.write(f"| {name} | {statistics.median(times):.0f} | {last:.0f} | |\n")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
