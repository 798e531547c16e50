"""Injects the faults of a plan at their times, and counts what was really injected."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from random import Random

import asyncpg
from redis.exceptions import RedisError

from chaos.fleet import Fleet
from chaos.hostile import Intruder
from chaos.plan import FAULTS, Occurrence, Plan, schedule
from chaos.servers import Servers


@dataclass(kw_only=True)
class World:
    """All that faults can hit, and the count of those that did."""

    plan: Plan
    servers: Servers
    fleet: Fleet
    intruder: Intruder
    counts: Counter[str] = field(default_factory=Counter)
    valkey_lost_at: float = 0.0
    """When Valkey last came back from a crash or a wipe: what it had acknowledged before may be lost."""


Injection = Callable[[World, Random, int], Awaitable[bool]]
"""Does one fault, and says whether there was something to hit."""


async def inject_all(world: World) -> None:
    """Inject the faults of the plan; return when the last is over and everything is healed."""
    started = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for occurrence in schedule(world.plan):
            await asyncio.sleep(started + occurrence.at - time.monotonic())
            group.create_task(_inject(world, occurrence), name=occurrence.fault)
        await asyncio.sleep(started + world.plan.duration.total_seconds() - time.monotonic())
    for proxy in world.servers.proxies:
        proxy.heal()


async def _inject(world: World, occurrence: Occurrence) -> None:
    random = world.plan.random(f"{occurrence.fault}:{occurrence.number}")
    if await _INJECTIONS[occurrence.fault](world, random, occurrence.number):
        world.counts[occurrence.fault] += 1


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
    """Stop a worker for longer than its lease: it wakes up and believes to own jobs that others have."""
    worker = world.fleet.pick(random)
    if worker is None:
        return False
    worker.send(signal.SIGSTOP)
    await asyncio.sleep(world.plan.lease.total_seconds() * random.uniform(1.3, 2.0))
    if worker.process.poll() is None:
        worker.send(signal.SIGCONT)
    return True


async def _kill_valkey(world: World, random: Random, _number: int) -> bool:
    return await _crash_valkey(world, random.uniform(0.2, 1.5), wipe=False)


async def _wipe_valkey(world: World, random: Random, _number: int) -> bool:
    return await _crash_valkey(world, random.uniform(0, 0.5), wipe=True)


async def _crash_valkey(world: World, down: float, *, wipe: bool) -> bool:
    valkey, data = world.servers.valkey, world.servers.valkey_data
    await asyncio.to_thread(valkey.crash, down=down, wipe=data if wipe else None)
    world.valkey_lost_at = valkey.returned_at
    return True


async def _stop_postgres(world: World, random: Random, _number: int) -> bool:
    await asyncio.to_thread(world.servers.postgres.crash, down=random.uniform(0.2, 1.0))
    return True


async def _cut_valkey(world: World, random: Random, _number: int) -> bool:
    random.choice([world.servers.valkey_proxy.cut, world.servers.valkey_proxy.lose_replies])()
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
    """Hold a lock on users that nobody gets past; statements wait, and have time limits."""
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


async def _exhaust(world: World, _random: Random, _number: int) -> bool:
    """Take all connections that PostgreSQL has, those of the workers too."""
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
                return is_full  # the server is gone, and all connections with it
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
}
