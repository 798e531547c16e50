"""Part 7: how long ``users-worker run`` takes to its first job, what of it is loading modules, and its memory."""

import asyncio
import subprocess
import sys
import time
from typing import IO

from bench.contenders import CONTENDERS
from bench.drain import wait
from bench.parts import FAULTS, Plan, say, told
from bench.processes import ROOT, Worker, clean_environment, open_producer
from bench.results import Results
from bench.stage import Stage

_OURS = CONTENDERS["ours"]

_RUNS, _QUICK_RUNS = 7, 2

_SETTLE = 2.0
"""Seconds after the first job until memory is measured."""

_COMMAND = (sys.executable, "-m", "worker", "run")


async def measure_start(stage: Stage, plan: Plan, results: Results) -> None:
    """Part 7, only with our worker. Modules are compiled, and in the system's cache, but for the first start."""
    if "ours" not in plan.contenders:
        return
    for number in range(1 + (_QUICK_RUNS if plan.is_quick else _RUNS)):
        try:
            seconds, cpu, resident = await _start(stage)
        except FAULTS as error:
            told(results, "start", _OURS, error)
            return
        if number == 0:
            continue
        say(f"start: first job after {seconds:.2f} s, {cpu:.2f} s of CPU, {resident / 1e6:.1f} MB")
        results.add("start", "from the start of users-worker run to the commit of its first job, s", seconds)
        results.add("start", "CPU until then, s", cpu)
        results.add("start", "of it, loading modules (-X importtime), s", await asyncio.to_thread(_loading, stage))
        results.add("start", "resident memory of an idle worker, MB", resident / 1e6)


async def _start(stage: Stage) -> tuple[float, float, int]:
    await stage.observer.empty()
    async with open_producer(_OURS, stage.target) as producer:
        await producer.do("fill", kind="create_user", first=0, count=1)
    log = stage.directory / "start.log"
    with log.open("wb") as output:
        started = time.time()
        worker = Worker(_run(stage, output), log)
    try:

        async def is_done() -> bool:
            return await stage.observer.users() == 1

        await wait(worker, is_done, 30, look=0.005)
        cpu = worker.cpu_seconds()
        seconds = await stage.observer.last_commit() - started
        await asyncio.sleep(_SETTLE)
        return seconds, cpu, worker.resident_bytes()
    finally:
        worker.end()


def _run(stage: Stage, output: IO[bytes]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        _COMMAND, cwd=ROOT, env=_environment(stage), stdout=output, stderr=output, start_new_session=True
    )


def _environment(stage: Stage) -> dict[str, str]:
    return clean_environment() | {
        "DATABASE_URL": stage.target.database_url,
        "REDIS_URL": stage.target.redis_url,
        "WORKER_LOG_LEVEL": "warning",
    }


def _loading(stage: Stage) -> float:
    """Return how many seconds loading modules takes, by the interpreter's own account, which costs time itself."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *_COMMAND[1:], "--burst"],
        cwd=ROOT,
        env=_environment(stage),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:") and "[us]" not in line]
    return sum(int(line.split("|")[0].rpartition(":")[2]) for line in lines) / 1e6
