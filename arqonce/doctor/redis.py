"""Examines Redis: whether it keeps what it is given, and does what a worker asks of it. Writes one key for a moment."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from arqonce.connection.direct import DirectConnection
from arqonce.connection.redis import explain, location
from arqonce.connection.tracking import TrackingProof
from arqonce.connection.url import read_redis_url
from arqonce.doctor.finding import (
    Check,
    Finding,
    Verdict,
    compare_clocks,
    is_this_host,
    judge_certificate,
    judged,
    not_seen,
    well,
)
from arqonce.doctor.fleet import examine_fleet
from arqonce.process.probes import write_probe

_NOT_ALLOWED = "this user may not look"

_OLDEST = (6, 2)
"""The oldest Redis in which a worker is told of new jobs."""

_FULL = 0.9
"""The part of memory or of clients from which on the server is nearly full."""

_LATE = timedelta(seconds=10)
"""A replica that has not confirmed for longer than this is behind."""

Ask = Callable[[], Awaitable[Finding | Sequence[Finding] | None]]
Facts = dict[str, Any]


class RedisServer:
    """The examination of one server."""

    def __init__(self, redis: Redis, url: str, queues: Sequence[str] = ()) -> None:
        """Examine this server, and who serves these queues."""
        self._redis = redis
        self._queues = queues
        self._url = url

    @property
    def checks(self) -> list[Check]:
        """The questions, each of one or two round trips. The first one fails if the server cannot be used at all."""
        asks: dict[str, Ask] = {
            "writes": self._writes,
            "version": self._version,
            "eviction": self._eviction,
            "memory": self._memory,
            "persistence": self._persistence,
            "replicas": self._replicas,
            "clients": self._clients,
            "idle connections": self._idle,
            "notifications": self._notifications,
            "clock": self._clock,
            "TLS": self._tls,
            "workers": lambda: examine_fleet(self._redis, self._queues),
        }
        return [Check(f"Redis: {name}", self._asking(f"Redis: {name}", ask)) for name, ask in asks.items()]

    def _asking(self, name: str, ask: Ask) -> Ask:
        async def explained() -> Finding | Sequence[Finding] | None:
            try:
                return await ask()
            except NoPermissionError:
                return not_seen(name, _NOT_ALLOWED, "ask with a user that may: the worker's, or an administrator's")
            except ResponseError as error:
                if "unknown command" in str(error).lower():
                    return not_seen(name, "the server has no such command, or a service that hosts it hides it")
                return self._failure(name, error)
            except (RedisError, OSError) as error:
                return self._failure(name, error)

        return explained

    def _failure(self, name: str, error: RedisError | OSError) -> Finding:
        explained = str(explain(error, self._url))
        if str(error) and explained.endswith(str(error)):  # the server's own words, which are no cure
            return Finding(name, Verdict.FAILURE, explained)
        told, _, cure = explained.rpartition(": ")
        return Finding(name, Verdict.FAILURE, told, cure)

    async def _info(self, section: str) -> Facts:
        facts: Facts = await self._redis.info(section)
        return facts

    async def _writes(self) -> Finding:
        await write_probe(self._redis)
        return well("Redis: writes", f"accepted at {location(self._url)}")

    async def _version(self) -> Finding:
        facts = await self._info("server")
        name = "Valkey" if "valkey_version" in facts else "Redis"
        version = str(facts.get("valkey_version") or facts.get("redis_version", "0"))
        number = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        cure = "use Redis 6.2 or Valkey, or later ones: this one does not tell workers of new jobs, so they poll"
        return judged("Redis: version", f"{name} {version}", failure=cure if number < _OLDEST else None)

    async def _eviction(self) -> Finding:
        facts = await self._info("memory")
        policy, most = facts.get("maxmemory_policy", "unknown"), int(facts.get("maxmemory", 0))
        cure = "set maxmemory-policy noeviction: Redis may throw queued jobs away"
        value = f"{policy}, " + (f"maxmemory {_size(most)}" if most else "no maxmemory")
        if policy == "noeviction":
            return well("Redis: eviction", value)
        return judged("Redis: eviction", value, failure=cure if most else None, warning=cure)

    async def _memory(self) -> Finding:
        facts = await self._info("memory")
        used, most = int(facts.get("used_memory", 0)), int(facts.get("maxmemory", 0))
        cure = "raise maxmemory, or look at status: what is not taken out of the queue fills it"
        value = _size(used) + (f" of {_size(most)}" if most else "")
        return judged("Redis: memory", value, warning=cure if most and used > most * _FULL else None)

    async def _persistence(self) -> Finding:
        facts = await self._info("persistence")
        has_log, snapshots = bool(facts.get("aof_enabled")), facts.get("rdb_last_bgsave_status", "ok")
        value = f"append-only file {'on' if has_log else 'off'}, last snapshot {snapshots}"
        if snapshots != "ok" or facts.get("aof_last_write_status", "ok") != "ok":
            return judged("Redis: persistence", value, failure="its disk is full or broken: look into its log")
        cure = (
            "set appendonly yes: what was enqueued directly is lost with the server's memory (jobs that were promised "
            "in PostgreSQL are given again)"
        )
        return judged("Redis: persistence", value, warning=None if has_log else cure)

    async def _replicas(self) -> Finding:
        facts = await self._info("replication")
        number = int(facts.get("connected_slaves", 0))
        lags = [int(replica.get("lag", 0)) for replica in facts.values() if isinstance(replica, dict)]
        late = [lag for lag in lags if lag > _LATE.total_seconds()]
        cure = "look at the network between the servers: a failover would lose what the replica does not have"
        return judged("Redis: replicas", f"{number}", warning=cure if late else None)

    async def _clients(self) -> Finding:
        facts = await self._info("clients")
        used, most = int(facts.get("connected_clients", 0)), int(facts.get("maxclients", 0))
        cure = "raise maxclients, or look for a service that opens a client for each request"
        value = f"{used}" + (f" of {most}" if most else "")
        return judged("Redis: clients", value, warning=cure if most and used > most * _FULL else None)

    async def _idle(self) -> Finding:
        found = await self._redis.config_get("timeout")
        seconds = int(found.get("timeout", 0))
        value = f"closed after {seconds} s" if seconds else "kept"
        cure = "set timeout 0: an idle worker is told of new jobs over a connection that is idle itself"
        return judged("Redis: idle connections", value, warning=cure if seconds else None)

    async def _notifications(self) -> Finding:
        """Prove that client-side tracking works, as a worker does for itself."""
        name = "Redis: notifications"
        failed = asyncio.Event()
        direct = DirectConnection(self._redis, tracks=True)
        proof = TrackingProof(direct, self._redis, failed.set)
        direct.on_change = proof.hear
        try:
            proof.begin(await direct.open())
            if direct.refusal is None:
                await proof.settled()
            why = direct.refusal or proof.failure
        finally:
            await proof.aclose()
            direct.close()
        cure = "let the user track (CLIENT TRACKING), or connect without a proxy: until then workers poll"
        return judged(name, "a change is told" if why is None else str(why), warning=None if why is None else cure)

    async def _clock(self) -> Finding:
        before = datetime.now(UTC)
        seconds, micros = await self._redis.time()
        told = datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros)
        return compare_clocks("Redis: clock", before, told, datetime.now(UTC))

    async def _tls(self) -> Finding | None:
        address = read_redis_url(self._url)
        if address.plain.startswith("unix:"):
            return None
        if not address.is_tls:
            is_near = is_this_host(urlsplit(address.plain).hostname or "")
            cure = None if is_near else "use rediss://: passwords and data are readable on the way"
            return judged("Redis: TLS", "none" + " (the server is on this host)" * is_near, warning=cure)
        connection = await self._redis.connection_pool.get_connection("PING")
        try:
            wrapped: ssl.SSLObject | None = connection._writer.get_extra_info("ssl_object")  # noqa: SLF001 - no public way
            certificate = wrapped.getpeercert() if wrapped is not None else None
        finally:
            await self._redis.connection_pool.release(connection)
        return judge_certificate("Redis: TLS", certificate)


def _size(number: int) -> str:
    return f"{number / 2**20:,.0f} MiB"
