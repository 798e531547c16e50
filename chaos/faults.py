"""Injects the faults of a plan at their times, and counts those that really happened."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

import asyncpg
from redis.exceptions import RedisError

from arqonce.wire.keys import QUEUE
from chaos.evidence import Strike
from chaos.failovers import change_queue, fail_over, fill_disk, turn_read_only
from chaos.fleet import Fleet
from chaos.hostile import Intruder
from chaos.jobs import DEADLINE, Slow
from chaos.plan import FAULTS, Occurrence, Plan, schedule
from chaos.servers import Servers
from jobs.payloads import CreateUser

_MARGIN = timedelta(seconds=5)
"""How long after a job's deadline the outermost time limit ends the attempt."""


@dataclass(kw_only=True)
class World:
    """Everything that faults can hit, and the count of faults."""

    plan: Plan
    servers: Servers
    fleet: Fleet
    intruder: Intruder
    counts: Counter[str] = field(default_factory=Counter)
    strikes: list[Strike] = field(default_factory=list)
    """The injected faults with their times."""


Injection = Callable[[World, Random, int], Awaitable[bool]]
"""Injects one fault; returns whether there was something to hit."""


async def inject_all(world: World) -> None:
    """Inject the faults of the plan; return when the last one is over and everything works again."""
    started = time.monotonic()
    watching = asyncio.create_task(world.servers.valkey.watch())
    async with asyncio.TaskGroup() as group:
        for occurrence in schedule(world.plan):
            await asyncio.sleep(started + occurrence.at - time.monotonic())
            group.create_task(_inject(world, occurrence), name=occurrence.fault)
        await asyncio.sleep(started + world.plan.duration.total_seconds() - time.monotonic())
    for proxy in world.servers.proxies:
        proxy.heal()
    watching.cancel()


async def _inject(world: World, occurrence: Occurrence) -> None:
    random = world.plan.random(f"{occurrence.fault}:{occurrence.number}")
    began = time.time()
    if await _INJECTIONS[occurrence.fault](world, random, occurrence.number):
        world.counts[occurrence.fault] += 1
        world.strikes.append(Strike(occurrence.fault, began, time.time()))


async def _kill(world: World, random: Random, _number: int) -> bool:
    return _signal(world, random, signal.SIGKILL)


async def _term(world: World, random: Random, _number: int) -> bool:
    return _signal(world, random, signal.SIGTERM)


def _signal(world: World, random: Random, number: signal.Signals) -> bool:
    worker = world.fleet.pick(random)
    if worker is not None:
        worker.send(number)
    return worker is not None


async def _stop(world: World, random: Random, _number: int) -> bool:
    """Stop a worker for longer than its lease. When it continues, it believes that it owns jobs that others own."""
    worker = world.fleet.pick(random)
    if worker is None:
        return False
    worker.send(signal.SIGSTOP)
    await asyncio.sleep(world.plan.lease.total_seconds() * random.uniform(1.3, 2.0))
    if worker.process.poll() is None:
        worker.send(signal.SIGCONT)
    return True


async def _stand_still(world: World, random: Random, _number: int) -> bool:
    """Stop one worker, or all at once, for longer than a slow job's deadline, outermost time limit and lease."""
    ready = world.fleet.ready
    if not ready:
        return False
    stopped = ready if random.random() < 0.5 else [random.choice(ready)]
    for worker in stopped:
        worker.send(signal.SIGSTOP)
    longest = (DEADLINE + _MARGIN + world.plan.lease).total_seconds()
    await asyncio.sleep(longest + random.uniform(0.5, 2.0))
    for worker in stopped:  # one by one: the first finds its leases ended while no other worker has claimed its jobs
        if worker.process.poll() is None:
            worker.send(signal.SIGCONT)
        await asyncio.sleep(random.choice([0.0, 0.3]))
    world.counts[f"standstill of {'all' if len(stopped) > 1 else 'one'}"] += 1
    return True


async def _kill_valkey(world: World, random: Random, _number: int) -> bool:
    return await _crash_valkey(world, random.uniform(0.2, 1.5), wipe=False)


async def _wipe_valkey(world: World, random: Random, _number: int) -> bool:
    return await _crash_valkey(world, random.uniform(0, 0.5), wipe=True)


async def _crash_valkey(world: World, down: float, *, wipe: bool) -> bool:
    async with world.servers.valkey.lock:
        await asyncio.to_thread(world.servers.valkey.crash, down=down, wipe=wipe)
    return True


async def _fail_over_valkey(world: World, random: Random, _number: int) -> bool:
    return await change_queue(world.servers.valkey, world.servers.valkey.fail_over, random)


async def _demote_valkey(world: World, random: Random, _number: int) -> bool:
    return await change_queue(world.servers.valkey, world.servers.valkey.demote, random)


async def _stop_postgres(world: World, random: Random, _number: int) -> bool:
    async with world.servers.postgres.lock:
        await asyncio.to_thread(world.servers.postgres.primary.crash, down=random.uniform(0.2, 1.0))
    return True


async def _fail_over_postgres(world: World, random: Random, _number: int) -> bool:
    return await fail_over(world.servers.postgres, random)


async def _turn_read_only(world: World, random: Random, _number: int) -> bool:
    return await turn_read_only(world.servers.postgres, random, FAULTS["pg-read-only"].longest)


async def _fill_disk(world: World, random: Random, _number: int) -> bool:
    return await fill_disk(world.servers.postgres, random, FAULTS["pg-disk-full"].longest)


async def _cut_valkey(world: World, random: Random, _number: int) -> bool:
    should_cut = random.random() < 0.5
    for proxy in world.servers.valkey.proxies:
        (proxy.cut if should_cut else proxy.lose_replies)()
    return True


async def _cut_postgres(world: World, random: Random, _number: int) -> bool:
    random.choice([world.servers.postgres_proxy.cut, world.servers.postgres_proxy.lose_replies])()
    return True


async def _delay(world: World, random: Random, _number: int) -> bool:
    for proxy in world.servers.proxies:
        proxy.delay = random.uniform(0.0, 0.2)
    await asyncio.sleep(FAULTS["delay"].longest)
    for proxy in world.servers.proxies:
        proxy.delay = 0.0
    return True


async def _black_hole(world: World, random: Random, _number: int) -> bool:
    proxies = random.choice([world.servers.proxies, world.servers.proxies[:1], world.servers.proxies[1:]])
    for proxy in proxies:
        proxy.go_silent()
    await asyncio.sleep(random.uniform(1.0, FAULTS["black-hole"].longest))
    for proxy in proxies:
        proxy.heal()
    return True


async def _lock(world: World, _random: Random, _number: int) -> bool:
    """Lock the table users exclusively. Statements wait, and have timeouts."""
    is_held = False
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection = await asyncpg.connect(world.servers.database.url.get_secret_value(), timeout=5)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
                is_held = True
                await asyncio.sleep(FAULTS["lock"].longest)
        finally:
            connection.terminate()
    return is_held


async def _pause(world: World, random: Random, _number: int) -> bool:
    """Pause the queue or a kind, and resume it, as an operator who cannot reach Redis. It also ends by itself."""
    longest, kind = FAULTS["pause"].longest, random.choice(["", CreateUser.job_name, Slow.job_name])
    pause = (
        "INSERT INTO arqonce.pauses (queue, job_name, reason, paused_by, until) VALUES ($1, $2, 'chaos', 'chaos', "
        "now() + $3) ON CONFLICT (queue, job_name) DO UPDATE SET until = excluded.until"
    )
    is_paused = False
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        connection = await asyncpg.connect(world.servers.database.url.get_secret_value(), timeout=5)
        try:
            await connection.execute(pause, QUEUE, kind, timedelta(seconds=longest))
            is_paused = True
            await asyncio.sleep(random.uniform(0.5, longest))
            await connection.execute("DELETE FROM arqonce.pauses")
        finally:
            connection.terminate()
    return is_paused


async def _exhaust(world: World, _random: Random, _number: int) -> bool:
    """Use up all connections of PostgreSQL, and cut those of the workers."""
    end = time.monotonic() + FAULTS["exhaust"].longest
    is_full = False
    async with AsyncExitStack() as stack:
        while time.monotonic() < end:
            try:
                connection = await asyncpg.connect(world.servers.database.url.get_secret_value(), timeout=2)
            except asyncpg.TooManyConnectionsError:
                if not is_full:
                    world.servers.postgres_proxy.cut()
                is_full = True
                await asyncio.sleep(0.005)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                return is_full  # the server is unreachable, and all connections are lost
            else:
                stack.callback(connection.terminate)
    return is_full


async def _strike(world: World, random: Random, number: int) -> bool:
    with suppress(RedisError, OSError):
        await world.intruder.strike(random, number)
        return True
    return False


_INJECTIONS: Mapping[str, Injection] = {
    "kill": _kill,
    "term": _term,
    "stop": _stop,
    "valkey-kill": _kill_valkey,
    "valkey-wipe": _wipe_valkey,
    "postgres-stop": _stop_postgres,
    "cut-valkey": _cut_valkey,
    "cut-postgres": _cut_postgres,
    "delay": _delay,
    "black-hole": _black_hole,
    "lock": _lock,
    "exhaust": _exhaust,
    "hostile": _strike,
    "pg-failover": _fail_over_postgres,
    "pg-read-only": _turn_read_only,
    "pg-disk-full": _fill_disk,
    "valkey-failover": _fail_over_valkey,
    "valkey-demote": _demote_valkey,
    "standstill": _stand_still,
    "pause": _pause,
}
