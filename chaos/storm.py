"""One run from start to verdict: servers, workers, jobs and faults, then the drain and the checks."""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError

from arqonce.client.client import JobClient
from arqonce.database.engine import open_database
from arqonce.embedded import EmbeddedServerError
from arqonce.wire.keys import QUEUE
from chaos.checks import Verdict
from chaos.evidence import Evidence, prepare_ledger, read_database, read_logs, read_valkey
from chaos.faults import World, inject_all
from chaos.fleet import FUNCTIONS, OURS, Fleet
from chaos.hostile import Intruder
from chaos.limits import PLACES, read_over
from chaos.plan import MARKER, Plan
from chaos.producer import Producer
from chaos.schedules import END
from chaos.servers import Needs, Servers, open_servers
from chaos.small_disk import can_mount
from chaos.workload import orders

_PRODUCERS_CONNECTIONS = 10

_STABLE = timedelta(milliseconds=300)
"""How long there must be nothing left to do before the queue counts as drained."""

_STARTING = timedelta(seconds=10)
"""How long servers and workers take to start, about: schedules last so much longer than the faults."""

_START_LIMIT = timedelta(seconds=60)
"""How long all workers may take to become ready, on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a run."""

    verdict: Verdict
    faults: Mapping[str, int]
    drain: timedelta


def run(plan: Plan, directory: Path) -> Outcome:
    """Execute the run, with data and logs in ``directory``. Everything that it starts ends with it.

    Raises:
        EmbeddedServerError: a server cannot be started here.
        TimeoutError: the workers were not ready in time, or jobs could not be submitted.
    """
    logs, places = directory / "logs", directory / "places"
    logs.mkdir(parents=True)
    places.mkdir()
    command: Sequence[str] = (sys.executable, "-m", "chaos.mutants", plan.mutant) if plan.mutant else OURS
    if "functions" in plan.faults:
        command = (*command, *FUNCTIONS)
    with open_servers(directory, needs_of(plan)) as servers:
        environment = servers.worker_environment | _settings(plan) | {PLACES: str(places)}
        with (
            Fleet.open(command, environment, logs, size=plan.workers) as fleet,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            return runner.run(_storm(plan, servers, fleet, directory))


def needs_of(plan: Plan) -> Needs:
    """Return the servers that the faults need. Manual demotion excludes Sentinels; given both, the seed decides."""
    fails_over, is_demoted = "valkey-failover" in plan.faults, "valkey-demote" in plan.faults
    return Needs(
        has_standby="pg-failover" in plan.faults,
        has_small_disk="pg-disk-full" in plan.faults and can_mount(),
        has_replica=fails_over or is_demoted,
        has_sentinels=fails_over and not (is_demoted and plan.seed % 2),
    )


_REGISTRIES = {
    "standstill": "chaos.jobs:REGISTRY",
    "careless": "chaos.careless:REGISTRY",
    "schedules": "chaos.schedules:REGISTRY",
    "limits": "chaos.limits:REGISTRY",
}
"""Additional registries of the workers, by the fault that needs them."""


def _settings(plan: Plan) -> dict[str, str]:
    registries = [registry for fault, registry in _REGISTRIES.items() if fault in plan.faults]
    return {
        "WORKER_REGISTRY": ",".join(["chaos.turns:REGISTRY", *registries]),
        "WORKER_LEASE": f"{plan.lease.total_seconds():g}s",
        "WORKER_LOG_FORMAT": "json",
        END: (datetime.now(UTC) + plan.duration + _STARTING).replace(microsecond=0).isoformat(),
        "WORKER_SHUTDOWN_GRACE": "5s",
    }


async def _storm(plan: Plan, servers: Servers, fleet: Fleet, directory: Path) -> Outcome:
    await prepare_ledger(servers.database.url.get_secret_value())
    if "pg-failover" in plan.faults:
        await servers.postgres.add_standby()
    supervisor = asyncio.create_task(fleet.run(), name="supervisor")
    async with asyncio.timeout(_START_LIMIT.total_seconds()):
        await fleet.wait_until_ready()
    async with (
        JobClient(servers.valkey.producer_url) as client,
        open_database(servers.producers_database, pool_size=_PRODUCERS_CONNECTIONS) as sessions,
    ):
        intruder = Intruder(lambda: servers.redis_url, directory / "pickle-was-read")
        world = World(plan=plan, servers=servers, fleet=fleet, intruder=intruder)
        producer = Producer(client=client, sessions=sessions)
        submitted = orders(plan)
        submitting = asyncio.create_task(producer.submit_all(submitted), name="producer")
        try:
            await inject_all(world)
            drain = await _drain(plan, submitting, servers)
        finally:
            submitting.cancel()  # it is late, or the run was aborted
            await producer.stop_waiting()
        fleet.stop()
        await supervisor
        evidence = Evidence(
            orders=submitted,
            accepted=producer.accepted,
            submitted=producer.submitted,
            heard=producer.heard,
            strikes=world.strikes,
            valkey_lost_at=servers.valkey.lost_at,
            hostile_ids=world.intruder.ids,
            has_exploded=(directory / "pickle-was-read").exists(),
            ends=fleet.ends,
            over=read_over(directory / "places"),
        )
        await read_database(evidence, servers.database.url.get_secret_value())
        async with Redis.from_url(servers.redis_url) as redis:
            await read_valkey(evidence, redis)
    read_logs(evidence, sorted((directory / "logs").glob("*.log")), [MARKER, *servers.passwords])
    return Outcome(verdict=Verdict(evidence), faults=world.counts, drain=drain)


async def _drain(plan: Plan, submitting: "asyncio.Task[None]", servers: Servers) -> timedelta:
    """Wait until all jobs are submitted and have ended, or the time limit is over; return how long it took."""
    started = time.monotonic()
    with suppress(TimeoutError):
        async with asyncio.timeout(plan.drain.total_seconds()):
            await submitting
            # Twice: a relay may be about to dispatch a job that has just ended, which is then delivered once more.
            while not (await _is_idle(servers) and await _is_idle_later(servers)):
                await asyncio.sleep(0.05)
    return timedelta(seconds=time.monotonic() - started)


_OWED = """
    SELECT EXISTS (SELECT FROM arqonce.outbox) OR EXISTS (SELECT FROM arqonce.schedules WHERE next_slot IS NOT NULL)
"""


async def _is_idle(servers: Servers) -> bool:
    """Return whether both primaries have no jobs left."""
    try:
        async with Redis.from_url(servers.redis_url) as redis:
            if await redis.zcard(QUEUE):
                return False
        connection = await asyncpg.connect(servers.database.url.get_secret_value(), timeout=5)
        try:
            return not await connection.fetchval(_OWED)
        finally:
            await connection.close()
    except (RedisError, OSError, asyncpg.PostgresError, EmbeddedServerError):
        return False


async def _is_idle_later(servers: Servers) -> bool:
    await asyncio.sleep(_STABLE.total_seconds())
    return await _is_idle(servers)
