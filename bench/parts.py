"""The parts of the benchmark, each in rounds in which the contenders take turns."""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
from redis.exceptions import RedisError

from bench.contenders import CONTENDERS, Contender
from bench.drain import drain
from bench.latency import latencies
from bench.no_op import enqueue_rate, look_ups, no_ops
from bench.processes import ContenderError
from bench.results import Results
from bench.stage import Stage

FAULTS = (ContenderError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, RedisError)
"""Failures of a contender. They are reported, and the benchmark continues."""

_RUN_SECONDS, _QUICK_RUN_SECONDS = 1.6, 0.8
"""Intended duration of one run in seconds; the first, discarded round determines its number of jobs."""

_FEWEST, _MOST = 300, 60_000
"""Limits of the number of jobs in one run."""


@dataclass(frozen=True)
class Plan:
    """What to measure, and how often."""

    contenders: tuple[str, ...]
    rounds: int
    samples: int
    is_quick: bool = False

    def chosen(self, *names: str) -> list[Contender]:
        """Return those of the named contenders, by default of all, that take part."""
        everybody = [name for name, contender in CONTENDERS.items() if not contender.is_of_one_part]
        return [CONTENDERS[name] for name in names or everybody if name in self.contenders]


def say(text: str) -> None:
    """Report progress on standard error."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


async def measure_drain(stage: Stage, plan: Plan, results: Results) -> None:
    """Part 1. The first round is discarded; it determines how many jobs a run has."""
    counts: dict[str, int] = {}
    for number in range(plan.rounds + 1):
        for contender in plan.chosen():
            if number > 0 and contender.name not in counts:
                continue  # it failed in the first round
            count = counts.get(contender.name, contender.drain)
            try:
                run = await drain(stage, contender, count)
            except FAULTS as error:
                told(results, "create_user", contender, error)
                continue
            say(f"create_user {number}/{plan.rounds} {contender.name}: {run.rate:,.0f}/s")
            if number == 0:
                counts[contender.name] = jobs_of_a_run(plan, run.rate)
                continue
            results.add("create_user", contender.name, run.rate)
            results.add("create_user cpu", contender.name, run.cpu_seconds / run.jobs * 1e6)
            results.add("create_user commands", contender.name, run.redis_commands / run.jobs)


def jobs_of_a_run(plan: Plan, rate: float) -> int:
    """Return how many jobs a run has whose contender does so many a second."""
    seconds = _QUICK_RUN_SECONDS if plan.is_quick else _RUN_SECONDS
    return min(_MOST, max(_FEWEST, round(rate * seconds)))


_LATENCY_ROUNDS = 2
"""Number of turns in which the samples are taken."""


async def measure_latency(stage: Stage, plan: Plan, results: Results) -> None:
    """Part 2."""
    turns = 1 if plan.is_quick else _LATENCY_ROUNDS
    for number in range(turns):
        for contender in _with_latency(plan):
            try:
                commits, answers = await latencies(stage, contender, samples=plan.samples // turns)
            except FAULTS as error:
                told(results, "latency", contender, error)
                continue
            say(f"latency {number + 1}/{turns} {contender.name}: {sorted(commits)[len(commits) // 2] * 1000:.2f} ms")
            results.add("commit", contender.name, *(1000 * value for value in commits))
            results.add("result", contender.name, *(1000 * value for value in answers))


def _with_latency(plan: Plan) -> Sequence[Contender]:
    return [
        contender
        for contender in plan.chosen()
        if contender.name == "no-queue-10" or (contender.role != "floor" and not contender.is_set_based)
    ]


def told(results: Results, what: str, contender: Contender, error: Exception) -> None:
    """Report a failure, on standard error and in the results."""
    say(f"{what} {contender.name} failed: {error}")
    results.fail(what, contender.title, f"{type(error).__name__}: {error}")


_PROCESSES = (1, 4, 10, 20, 40)
_QUICK_PROCESSES = (1, 4)

_NO_OPS, _QUICK_NO_OPS = 20_000, 4000
"""As in streaQ's published benchmark, which arq does not complete with 40 processes."""

_NO_OP_LIMIT = 8.0
"""Longest time for the no-ops, in seconds: 2,500 jobs a second. A contender that needs longer is reported as such."""

_QUICK_RATE = 3000.0
"""Peers that run more no-ops per second than this with one process are measured three times, like ours."""

_NO_OP_CONTENDERS = ("ours", "arq-tuned", "taskiq-stream", "saq", "streaq", "pgqueuer")


async def measure_no_op(stage: Stage, plan: Plan, results: Results) -> None:
    """Part 3. Measures ours and fast peers three times, and much slower peers once."""
    for number in range(1 if plan.is_quick else min(3, plan.rounds)):
        for processes in _QUICK_PROCESSES if plan.is_quick else _PROCESSES:
            for contender in plan.chosen(*_NO_OP_CONTENDERS):
                rate = results.median(f"no_op {processes}", contender.name) or 0
                if number == 0 or contender.role == "ours" or (processes == 1 and rate > _QUICK_RATE):
                    await _measure_no_op(stage, plan, results, contender, processes)
    await _measure_look_ups(stage, plan, results)
    await _measure_enqueue(stage, plan, results)


async def _measure_no_op(stage: Stage, plan: Plan, results: Results, contender: Contender, processes: int) -> None:
    what, count = f"no_op {processes}", _QUICK_NO_OPS if plan.is_quick else _NO_OPS
    try:
        run = await no_ops(stage, contender, processes=processes, count=count, limit=_NO_OP_LIMIT)
    except FAULTS as error:
        told(results, what, contender, error)
        return
    say(f"{what} {contender.name}: {run.rate:,.0f}/s {run.flaw or ''}")
    results.add(what, contender.name, run.rate)
    if run.ran < run.jobs:
        results.add(f"unfinished {processes}", contender.name, run.ran)
    elif run.flaw:
        results.fail(what, contender.title, run.flaw)


_FIND_CONTENDERS = ("ours", "arq-tuned", "taskiq-list", "taskiq-stream", "saq", "streaq", "procrastinate", "pgqueuer")


async def _measure_look_ups(stage: Stage, plan: Plan, results: Results) -> None:
    counts: dict[str, int] = {}
    for number in range(min(2, plan.rounds) + 1):
        for contender in plan.chosen(*_FIND_CONTENDERS):
            if number > 0 and contender.name not in counts:
                continue  # it failed in the first round
            try:
                rate = await look_ups(stage, contender, counts.get(contender.name, contender.drain))
            except FAULTS as error:
                told(results, "find_user", contender, error)
                continue
            say(f"find_user {number} {contender.name}: {rate:,.0f}/s")
            counts.setdefault(contender.name, jobs_of_a_run(plan, rate))
            if number > 0:
                results.add("find_user", contender.name, rate)


_ONE_BY_ONE, _BULK = 2000, 20_000
"""Numbers of jobs that a producer enqueues."""


async def _measure_enqueue(stage: Stage, plan: Plan, results: Results) -> None:
    for _ in range(min(3, plan.rounds)):
        for contender in plan.chosen(*_FIND_CONTENDERS):
            for is_bulk in (False, True) if contender.name == "ours" else (False,):
                await stage.observer.empty()
                name = "enqueue_many" if is_bulk else contender.name
                try:
                    count = _BULK if is_bulk else _ONE_BY_ONE
                    rate = await enqueue_rate(contender, stage.target, count=count, is_bulk=is_bulk)
                except FAULTS as error:
                    told(results, "enqueue", contender, error)
                    continue
                say(f"enqueue {name}: {rate:,.0f}/s")
                results.add("enqueue", name, rate)
