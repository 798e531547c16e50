"""The parts of the bench, each in rounds that take the contenders in turn."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
from redis.exceptions import RedisError

from bench.contenders import CONTENDERS, Contender
from bench.drain import drain
from bench.latency import latencies
from bench.processes import ContenderError
from bench.results import Results
from bench.stage import Stage

_FAULTS = (ContenderError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, RedisError)
"""What a contender may do to us: it is told, and the bench goes on."""

_RUN_SECONDS = 2.0
"""How long one run is to take: as many jobs as the first, discarded round promises."""

_FEWEST, _MOST = 300, 60_000
"""Jobs of one run."""


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    contenders: tuple[str, ...]
    rounds: int
    samples: int
    is_quick: bool = False

    def chosen(self, *names: str) -> list[Contender]:
        """Return those of the named contenders, or of all, that take part."""
        return [CONTENDERS[name] for name in names or CONTENDERS if name in self.contenders]


def say(text: str) -> None:
    """Tell how far we are."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


async def measure_drain(stage: Stage, plan: Plan, results: Results) -> None:
    """Part 1. The first round is discarded: it finds out how many jobs make a run of two seconds."""
    counts: dict[str, int] = {}
    for number in range(plan.rounds + 1):
        for contender in plan.chosen():
            if number > 0 and contender.name not in counts:
                continue  # it failed at first
            count = counts.get(contender.name, contender.drain)
            try:
                run = await drain(stage, contender, count)
            except _FAULTS as error:
                _told(results, "create_user", contender, error)
                continue
            say(f"create_user {number}/{plan.rounds} {contender.name}: {run.rate:,.0f}/s")
            if number == 0:
                counts[contender.name] = min(_MOST, max(_FEWEST, round(run.rate * _RUN_SECONDS)))
                continue
            results.add("create_user", contender.name, run.rate)
            results.add("create_user cpu", contender.name, run.cpu_seconds / run.jobs * 1e6)
            results.add("create_user commands", contender.name, run.redis_commands / run.jobs)


_LATENCY_ROUNDS = 3
"""Samples are taken in so many turns."""


async def measure_latency(stage: Stage, plan: Plan, results: Results) -> None:
    """Part 2."""
    turns = 1 if plan.is_quick else _LATENCY_ROUNDS
    for number in range(turns):
        for contender in _with_latency(plan):
            try:
                commits, answers = await latencies(stage, contender, samples=plan.samples // turns)
            except _FAULTS as error:
                _told(results, "latency", contender, error)
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


def _told(results: Results, what: str, contender: Contender, error: Exception) -> None:
    say(f"{what} {contender.name} failed: {error}")
    results.fail(what, contender.title, f"{type(error).__name__}: {error}")
