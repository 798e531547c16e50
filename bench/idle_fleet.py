"""Part 8: what a fleet of idle workers costs, as ``users-worker run`` starts it, and which commands that takes."""

import asyncio
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack

from bench.contenders import CONTENDERS
from bench.drain import wait
from bench.parts import FAULTS, Plan, say, told
from bench.processes import ROOT, Worker, clean_environment
from bench.results import Results
from bench.stage import Stage

_WORKERS, _QUICK_WORKERS = 40, 10

_STARTED_AT_ONCE = 4
"""Workers that start together: a start takes half a second of CPU."""

_SETTLE, _SECONDS, _QUICK_SECONDS = 10.0, 30.0, 10.0
"""Seconds from the last start until the fleet is measured, and for how long."""

_COMMAND = (sys.executable, "-m", "worker", "run")

_COMMON = 0.1
"""Commands that are more frequent than this, a second, have a row of their own."""


async def measure_idle_fleet(stage: Stage, plan: Plan, results: Results) -> None:
    """Part 8, only with our worker."""
    if "ours" not in plan.contenders:
        return
    try:
        await _measure(stage, plan, results)
    except FAULTS as error:
        told(results, "idle fleet", CONTENDERS["ours"], error)


async def _measure(stage: Stage, plan: Plan, results: Results) -> None:
    await stage.observer.empty()
    count = _QUICK_WORKERS if plan.is_quick else _WORKERS
    seconds = _QUICK_SECONDS if plan.is_quick else _SECONDS
    with ExitStack() as stack:
        workers: list[Worker] = []
        for _ in range(count):
            workers.append(_start(stage, len(workers)))
            stack.callback(workers[-1].end)
            if len(workers) % _STARTED_AT_ONCE == 0 or len(workers) == count:
                await _until_announced(stage, workers)
        await asyncio.sleep(_SETTLE)
        found, calls = await _cost(stage, workers, seconds)
    found |= {f"of the commands, {name.upper()}": number / seconds for name, number in calls.most_common()}
    for row, figure in found.items():
        if figure > _COMMON:
            say(f"{count} idle workers: {row}: {figure:.3g}")
            results.add(f"idle fleet of {count}", row, figure)


def _start(stage: Stage, number: int) -> Worker:
    log = stage.directory / f"idle-{number}.log"
    environment = clean_environment() | {
        "DATABASE_URL": stage.target.database_url,
        "REDIS_URL": stage.target.redis_url,
        "WORKER_LOG_LEVEL": "warning",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            _COMMAND, cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    return Worker(process, log)


async def _until_announced(stage: Stage, workers: list[Worker]) -> None:
    async def are_announced() -> bool:
        return int(await stage.observer.redis.zcard("arqonce:workers")) >= len(workers)

    await wait(workers[-1], are_announced, 60)


async def _cost(stage: Stage, workers: list[Worker], seconds: float) -> tuple[dict[str, float], Counter[str]]:
    observer = stage.observer
    calls, transactions = Counter(await observer.commands_by_name()), await observer.transactions()
    cpu, commands = sum(worker.cpu_seconds() for worker in workers), await observer.redis_commands()
    await asyncio.sleep(seconds)
    commands = await observer.redis_commands() - commands - 1
    cpu = sum(worker.cpu_seconds() for worker in workers) - cpu
    transactions = await observer.transactions() - transactions
    calls = Counter(await observer.commands_by_name()) - calls
    for worker in workers:
        worker.require_alive()
    found = {
        "CPU, % of a core": 100 * cpu / seconds,
        "Redis commands/s": commands / seconds,
        "transactions of PostgreSQL/s": transactions / seconds,
    }
    return found, calls
