"""Gathers what a run has left in PostgreSQL, in Valkey and in the logs. Judges nothing."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
from redis.asyncio import Redis

from arqonce.failures import InvalidMessageError
from arqonce.wire.codec import decode
from arqonce.wire.keys import IN_PROGRESS_KEY, JOB_KEY, QUEUE, RESULT_KEY
from chaos.functions import TABLE as FUNCTION_EFFECTS
from chaos.functions import NoteFunction
from chaos.jobs import SLOW_COMMITS
from chaos.limits import Over
from chaos.producer import Heard
from chaos.schedules import TABLE as SLOT_EFFECTS
from chaos.workload import Order

_LEDGER = """
    CREATE TABLE effects (name text NOT NULL);
    CREATE FUNCTION note_effect() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO effects VALUES (NEW.name); RETURN NULL; END $$;
    CREATE TRIGGER note_effect AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION note_effect();
"""
"""A table without constraints, written in the transaction of the effect: a repeated effect adds a second row."""

_PIPELINED = 500


class Person(NamedTuple):
    """A row of users."""

    name: str
    email: str | None


class Receipt(NamedTuple):
    """A row of arqonce.receipts: a result or, if the job was refused, a failure."""

    job_name: str
    result: dict[str, Any] | None
    failure: dict[str, Any] | None = None
    attempt: int = 1
    finished_at: float = 0.0
    """Seconds since 1970, when its transaction began."""


class Slots(NamedTuple):
    """What a schedule has done. Its slots are the full seconds between two times."""

    began: datetime
    ends: datetime | None
    is_over: bool
    """Whether it has no next slot."""

    effects: Counter[datetime]
    """How often each slot took effect."""


class Strike(NamedTuple):
    """One injected fault; begin and end are in seconds since 1970."""

    fault: str
    began: float
    ended: float


@dataclass(kw_only=True)
class Evidence:
    """Everything that the checks need."""

    orders: Sequence[Order]
    accepted: dict[str, float]
    """Time at which each job was accepted, by key; monotonic seconds."""
    submitted: dict[str, float] = field(default_factory=dict)
    """Time at which each job was first sent, by key; seconds since 1970."""
    heard: dict[str, list[Heard]] = field(default_factory=dict)
    """Results and failures that producers got, by key."""
    strikes: list[Strike] = field(default_factory=list)
    """All injected faults."""
    valkey_lost_at: float = 0.0
    """Valkey may have lost what it acknowledged before this time."""
    users: dict[int, Person] = field(default_factory=dict)
    receipts: dict[str, Receipt] = field(default_factory=dict)
    dead: dict[str, str] = field(default_factory=dict)
    """Reasons of dead letters, by key."""
    outbox: set[str] = field(default_factory=set)
    effects: Counter[str] = field(default_factory=Counter)
    """How often a user of each name was stored."""
    functions: dict[str, float] = field(default_factory=dict)
    """When the success of each function was recorded, by key; seconds since 1970."""
    function_runs: dict[str, list[float]] = field(default_factory=dict)
    """When each run of a function began, by the name that it was given; seconds since 1970."""
    schedules: dict[str, Slots] = field(default_factory=dict)
    """The schedules by name."""
    over: list[Over] = field(default_factory=list)
    """Jobs that ran beside as many as their limit allows."""
    answers: dict[str, Any] = field(default_factory=dict)
    """Results of successful jobs in Valkey, by key."""
    done: set[str] = field(default_factory=set)
    """Jobs that a worker has logged as done."""
    batches: int = 0
    """Number of batches that workers have logged as done."""
    queued: list[str] = field(default_factory=list)
    """Ids still in the queue, and remaining keys of jobs."""
    hostile_ids: set[str] = field(default_factory=set)
    has_exploded: bool = False
    """Whether the hostile pickle was unpickled."""
    ends: Counter[str] = field(default_factory=Counter)
    """How worker processes have ended."""
    leaks: list[str] = field(default_factory=list)
    """Logs that contain a secret, with the masked secret."""


async def prepare_ledger(url: str) -> None:
    """Create the table of effects and what makes commits slow."""
    connection = await asyncpg.connect(url)
    await connection.execute(_LEDGER + SLOW_COMMITS + FUNCTION_EFFECTS + SLOT_EFFECTS)
    await connection.close()


async def read_database(evidence: Evidence, url: str) -> None:
    """Add all tables' contents to the evidence."""
    connection = await asyncpg.connect(url)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        users = await connection.fetch("SELECT id, name, email FROM public.users")
        receipts = await connection.fetch(
            "SELECT job_id, job_name, result, failure, attempt, finished_at FROM arqonce.receipts"
        )
        dead = await connection.fetch(
            "SELECT job_id, reason FROM arqonce.dead_jobs WHERE job_id NOT IN (SELECT job_id FROM arqonce.receipts)"
        )
        outbox = await connection.fetch("SELECT job_id FROM arqonce.outbox")
        effects = await connection.fetch("SELECT name, count(*) AS times FROM effects GROUP BY name")
        runs = await connection.fetch("SELECT name, array_agg(began) AS times FROM function_effects GROUP BY name")
        schedules = await connection.fetch("SELECT name, created_at, ends, next_slot FROM arqonce.schedules")
        slots = await connection.fetch("SELECT name, slot FROM slot_effects")
    await connection.close()
    evidence.schedules = {
        row["name"]: Slots(
            row["created_at"],
            row["ends"],
            row["next_slot"] is None,
            Counter(found["slot"] for found in slots if found["name"] == row["name"]),
        )
        for row in schedules
    }
    evidence.users = {row["id"]: Person(row["name"], row["email"]) for row in users}
    of_functions = [row for row in receipts if row["job_name"] == NoteFunction.job_name]
    evidence.functions = {row["job_id"].partition("@")[0]: row["finished_at"].timestamp() for row in of_functions}
    evidence.function_runs = {row["name"]: row["times"] for row in runs}
    evidence.receipts = {row["job_id"]: _receipt(row) for row in receipts if row not in of_functions}
    evidence.dead = {row["job_id"]: row["reason"] for row in dead}
    evidence.outbox = {row["job_id"] for row in outbox}
    evidence.effects = Counter({row["name"]: row["times"] for row in effects})


def _receipt(row: asyncpg.Record) -> Receipt:
    facts = row["attempt"], row["finished_at"].timestamp()
    return Receipt(row["job_name"], _json(row["result"]), _json(row["failure"]), *facts)


def _json(text: str | None) -> dict[str, Any] | None:
    return None if text is None else json.loads(text)


async def read_valkey(evidence: Evidence, redis: Redis) -> None:
    """Add the results of all jobs, and remaining keys, to the evidence."""
    keys = [order.key for order in evidence.orders]
    for at in range(0, len(keys), _PIPELINED):
        part = keys[at : at + _PIPELINED]
        for key, data in zip(part, await redis.mget([RESULT_KEY + key for key in part]), strict=True):
            if data is not None and (answer := _success(data)) is not None:
                evidence.answers[key] = answer
    evidence.queued = [ascii(job_id) for job_id in await redis.zrange(QUEUE, 0, -1)]
    for key in keys:
        evidence.queued += [f"{name}" for name in await _leftovers(redis, key)]


async def _leftovers(redis: Redis, key: str) -> list[str]:
    names = [JOB_KEY + key, IN_PROGRESS_KEY + key]
    return [name for name, data in zip(names, await redis.mget(names), strict=True) if data is not None]


def _success(data: bytes) -> Any:  # noqa: ANN401 - any job's result
    try:
        message = decode(data)
    except InvalidMessageError:
        return None
    return message.get("r") if message.get("s") is True else None


def read_logs(evidence: Evidence, logs: Iterable[Path], secrets: Sequence[str]) -> None:
    """Add the jobs and batches that the workers' logs report as done, and the ``secrets`` that they contain.

    Secrets are searched for case-insensitively.
    """
    for log in logs:
        text = log.read_text(errors="replace")
        lowered = text.lower()
        evidence.leaks += [f"{log}: {_mask(secret)}" for secret in secrets if secret.lower() in lowered]
        evidence.done.update(_done(text))
        evidence.batches += text.count('"batch done"')


def _mask(secret: str) -> str:
    return secret[:3] + "…"


def _done(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if '"job done"' in line:
            try:
                yield json.loads(line)["job_id"]
            except (ValueError, KeyError):
                continue  # an incomplete line of a worker that was killed
