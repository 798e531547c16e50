"""A process of a contender, in the contender's environment: ``python -m bench.child worker|producer <contender>``.

A worker runs until it is killed. A producer reads commands from its standard input, one JSON object per line, and
writes one line of JSON for each.
"""

import asyncio
import importlib
import json
import logging
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from bench.contenders import CONTENDERS, Contender
from bench.target import Producer, Target, jobs, run

_RESULT_LIMIT = 20.0
"""Longest wait for a result, in seconds."""


def work(contender: Contender, target: Target, processes: int) -> None:
    """Run the worker in ``processes`` processes, forked after the imports."""
    module = importlib.import_module(contender.module)
    for process in range(1, processes):
        if os.fork() == 0:
            target = replace(target, process=process)
            break
    module.work(target, contender.variant)


async def produce(contender: Contender, target: Target) -> None:
    """Execute commands until standard input ends."""
    module = importlib.import_module(contender.module)
    async with module.open_producer(target, contender.variant) as producer:
        _answer({"ready": True})
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            _answer(await _COMMANDS[command.pop("do")](producer, **command))


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


async def _fill(producer: Producer, *, kind: str, first: int, count: int) -> dict[str, Any]:
    waiting = jobs(kind, first, count)
    started = time.perf_counter()
    await producer.fill(waiting)
    return {"seconds": time.perf_counter() - started}


async def _enqueue(producer: Producer, *, kind: str, first: int, count: int) -> dict[str, Any]:
    """Enqueue jobs one by one without a pause, to measure the rate of an ordinary producer."""
    waiting = jobs(kind, first, count)
    started = time.perf_counter()
    for job in waiting:
        await producer.enqueue(job)
    return {"seconds": time.perf_counter() - started}


async def _pour(producer: Producer, *, first: int, rate: float, seconds: float) -> dict[str, Any]:
    """Enqueue so many jobs a second, in portions of 20 ms; return how many that were."""
    started, poured = time.perf_counter(), 0
    while (passed := time.perf_counter() - started) < seconds:
        due = round(rate * passed) - poured
        if due:
            await producer.fill(jobs("create_user", first + poured, due))
            poured += due
        await asyncio.sleep(_PORTION)
    return {"poured": poured}


async def _commits(producer: Producer, *, first: int, count: int, pause: list[float]) -> dict[str, Any]:
    """Enqueue jobs one at a time, at random intervals; return the times by user name."""
    times = {}
    for job in jobs("create_user", first, count):
        await asyncio.sleep(random.uniform(*pause))
        times[job.arguments["name"]] = time.time()
        await producer.enqueue(job)
    return {"times": times}


async def _results(producer: Producer, *, first: int, count: int, pause: list[float]) -> dict[str, Any]:
    """Enqueue jobs one at a time and wait for each result; return how long each took."""
    seconds = []
    for job in jobs("create_user", first, count):
        await asyncio.sleep(random.uniform(*pause))
        started = time.perf_counter()
        try:
            async with asyncio.timeout(_RESULT_LIMIT):
                await producer.result(await producer.enqueue(job))
        except NotImplementedError:
            return {"seconds": []}
        seconds.append(time.perf_counter() - started)
    return {"seconds": seconds}


_PORTION = 0.02

_COMMANDS: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
    "fill": _fill,
    "pour": _pour,
    "enqueue": _enqueue,
    "commits": _commits,
    "results": _results,
}


def main() -> None:
    """Run the role that the arguments name."""
    logging.basicConfig(level=logging.WARNING)
    role, name, *rest = sys.argv[1:]
    contender = CONTENDERS[name]
    target = Target.from_environment()
    if role == "worker":
        work(contender, target, int(rest[0]))
    else:
        run(produce(contender, target))


if __name__ == "__main__":
    main()
