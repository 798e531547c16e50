"""The servers of the benchmark, with default durability, and how to observe and empty them between runs."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from pydantic import SecretStr
from redis.asyncio import Redis

from arqonce.database.settings import DatabaseSettings
from arqonce.embedded import PostgresServer, ValkeyServer, open_postgres, open_valkey
from arqonce.ledger.schema import upgrade_schemas
from jobs.registry import REGISTRY

_SETTINGS = {
    "track_commit_timestamp": "on",  # records when a row was committed, by the same clock as the producers'
    "max_connections": "1000",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",  # a checkpoint within a run would slow only one contender
}
"""fsync and synchronous_commit stay on."""


@dataclass(frozen=True)
class BenchServers:
    """Both servers, running."""

    postgres: PostgresServer
    valkey: ValkeyServer


@contextmanager
def open_bench_servers(directory: Path) -> Iterator[BenchServers]:
    """Run both servers, and apply the product's migrations."""
    with (
        open_postgres(directory / "postgres", settings=_SETTINGS) as postgres,
        open_valkey(directory / "valkey") as valkey,
    ):
        upgrade_schemas(DatabaseSettings(url=SecretStr(postgres.url)), REGISTRY.schemas)
        yield BenchServers(postgres, valkey)


class Observer:
    """Observes the servers from outside."""

    def __init__(self, postgres: asyncpg.Connection, redis: Redis) -> None:
        self.postgres, self.redis = postgres, redis

    async def empty(self) -> None:
        """Remove all rows and keys, and write a checkpoint, so that no run pays for an earlier one's changes."""
        tables = await self.postgres.fetchval(
            "SELECT string_agg(oid::regclass::text, ', ') FROM pg_class WHERE relkind = 'r' "
            "AND relnamespace::regnamespace::text IN ('public', 'arqonce') "
            "AND relname NOT LIKE 'alembic%' AND relname <> 'ledger_version' "
            "AND relname NOT LIKE 'procrastinate_%version%'"
        )
        await self.postgres.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
        await self.postgres.execute("CHECKPOINT")
        await self.redis.flushall()

    async def ids_drawn(self) -> int:
        """Return how many ids of users were generated: nearly a count of rows, and free of cost."""
        drawn: int = await self.postgres.fetchval(
            "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM users_id_seq"
        )
        return drawn

    async def users(self) -> int:
        """Count the users."""
        counted: int = await self.postgres.fetchval("SELECT count(*) FROM users")
        return counted

    async def receipts(self) -> int:
        """Count the receipts."""
        counted: int = await self.postgres.fetchval("SELECT count(*) FROM arqonce.receipts")
        return counted

    async def last_commit(self, *, after: int = 0) -> float:
        """Return when the last user with an id above ``after`` was committed, in seconds since 1970."""
        last: float = await self.postgres.fetchval(
            "SELECT extract(epoch FROM max(pg_xact_commit_timestamp(writer::xid)))::float8 "
            "FROM (SELECT DISTINCT xmin::text AS writer FROM users WHERE id > $1) AS writers",
            after,
        )
        return last

    async def commits(self) -> dict[str, float]:
        """Return when each user was committed, by name, in seconds since 1970."""
        rows = await self.postgres.fetch(
            "SELECT name, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS at FROM users"
        )
        return {row["name"]: row["at"] for row in rows}

    async def redis_reads(self) -> int:
        """Return how often Redis has read from a connection: once per round trip, and once for a whole pipeline."""
        return int((await self.redis.info("stats"))["total_reads_processed"])

    async def commands_by_name(self) -> dict[str, int]:
        """Return how often Redis has executed each command, including those inside scripts."""
        stats = await self.redis.info("commandstats")
        return {name.removeprefix("cmdstat_"): int(stat["calls"]) for name, stat in stats.items()}

    async def redis_memory(self) -> int:
        """Return the memory that Redis uses, in bytes."""
        return int((await self.redis.info("memory"))["used_memory"])

    async def transactions(self) -> int:
        """Return how many transactions have ended in this database, as far as sessions have reported them."""
        await self.postgres.execute("SELECT pg_stat_clear_snapshot()")
        ended: int = await self.postgres.fetchval(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        )
        return ended

    async def settle(self) -> None:
        """Wait until Redis has ended a rewrite of its file, which would disturb a run at random."""
        while (await self.redis.info("persistence"))["aof_rewrite_in_progress"]:
            await asyncio.sleep(0.1)

    async def redis_commands(self) -> int:
        """Return how many commands Redis has executed, including those inside scripts."""
        return int((await self.redis.info("stats"))["total_commands_processed"])


@asynccontextmanager
async def open_observer(servers: BenchServers, database_url: str | None = None) -> AsyncIterator[Observer]:
    """Yield an observer with its own connections, by default to the servers' first database."""
    postgres = await asyncpg.connect(database_url or servers.postgres.url)
    try:
        async with Redis.from_url(servers.valkey.url) as redis:
            yield Observer(postgres, redis)
    finally:
        await postgres.close()
