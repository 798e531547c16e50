"""Faults after which a server answers but cannot be written to: failovers, read-only, full disks. Each is undone."""

import asyncio
import time
from collections.abc import Callable
from random import Random

from arqonce.embedded import EmbeddedServerError
from chaos.cluster import Cluster
from chaos.queues import Queue

_READ_ONLY = "ALTER SYSTEM SET default_transaction_read_only = on"
_WRITABLE = "ALTER SYSTEM RESET default_transaction_read_only"
_RELOAD = "SELECT pg_reload_conf()"

_DATABASE_READ_ONLY = "ALTER DATABASE postgres SET default_transaction_read_only = on"
_DATABASE_WRITABLE = "ALTER DATABASE postgres RESET default_transaction_read_only"


async def fail_over(cluster: Cluster, random: Random) -> bool:
    """Promote the standby in one of six ways, and create a new standby from it; return whether there was one.

    The old primary is killed, shut down, or kept running read-only with all its clients. New connections reach the
    standby some time before its promotion; or until some time after it they reach the old primary, or nothing.
    """
    if not cluster.has_standby:
        return False
    async with cluster.lock:
        await cluster.until_replicated()
        old, pause = cluster.primary, random.uniform(1.0, 3.0)
        end = random.choice([_kill, _shut_down, _turn_read_only])
        is_early = random.random() < 0.5
        await end(cluster)
        if is_early:
            cluster.lead_to(cluster.standby)
            await asyncio.sleep(pause)
        await cluster.promote()
        if not is_early:
            cluster.lead_to(cluster.primary, delay=pause)
            await asyncio.sleep(pause)
        await asyncio.sleep(random.uniform(0.5, 2.0))  # clients may still have connections to the old primary
        await cluster.replace(old)
    return True


async def _kill(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.primary.server.kill)


async def _shut_down(cluster: Cluster) -> None:
    await asyncio.to_thread(cluster.primary.server.stop)


async def _turn_read_only(cluster: Cluster) -> None:
    await cluster.execute(_READ_ONLY, _RELOAD)


async def turn_read_only(cluster: Cluster, random: Random, longest: float) -> bool:
    """Make the server read-only for some seconds: for existing and new connections, or only for new ones."""
    async with cluster.lock:
        if random.random() < 0.6:
            await cluster.execute(_READ_ONLY, _RELOAD)
            await asyncio.sleep(random.uniform(2.0, longest))
            await cluster.execute(_WRITABLE, _RELOAD)
        else:
            await cluster.execute(_DATABASE_READ_ONLY)
            for proxy in cluster.proxies:
                proxy.cut()
            await asyncio.sleep(random.uniform(2.0, longest))
            await cluster.execute(_DATABASE_WRITABLE)
    return True


async def fill_disk(cluster: Cluster, random: Random, longest: float) -> bool:
    """Fill the tables' disk for some seconds, so that no table can grow; return whether this machine allows it."""
    async with cluster.lock:
        if (disk := cluster.disk) is None:
            return False
        try:
            await asyncio.to_thread(disk.fill)
            await asyncio.sleep(random.uniform(2.0, longest))
        finally:
            disk.free()
    return True


async def change_queue(queue: Queue, change: Callable[[Random], bool], random: Random) -> bool:
    """Fail over or demote, one at a time; return whether that succeeded under the other faults."""
    async with queue.lock:
        try:
            return await asyncio.to_thread(change, random)
        except EmbeddedServerError:  # the Sentinels did not complete it
            queue.lost_at = time.monotonic()
            return False
