"""PostgreSQL and, if a run fails over, its synchronous standby: acknowledged commits survive the primary."""

import asyncio
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import cast

import asyncpg

from arqonce.embedded import PostgresServer, StandbyServer, open_postgres, open_standby
from chaos.proxy import Proxy
from chaos.restartable import Restartable, free_port
from chaos.small_disk import SmallDisk

_LIMIT = 30.0
"""Longest wait, in seconds, for a standby to follow, or for a connection while all are in use."""

_LOOK = 0.05
"""Polling interval in seconds."""

_REPLICATED = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync' AND state = 'streaming')"


class Cluster:
    """A primary, and a standby after ``add_standby``. Clients connect through ``proxies``.

    Each failover promotes the standby and creates a new one. Faults hold ``lock``, so that one at a time hits the
    cluster.
    """

    def __init__(self, directory: Path, settings: Mapping[str, str], *, has_small_disk: bool) -> None:
        self._directory, self._settings, self._has_small_disk = directory, settings, has_small_disk
        self._made = 0
        self._standby: Restartable[PostgresServer] | None = None
        self._disks: dict[Restartable[PostgresServer], SmallDisk] = {}
        self.proxies: tuple[Proxy, ...] = ()
        self.lock = asyncio.Lock()
        self.primary = self._open(None)

    @property
    def url(self) -> str:
        """The primary's URL, bypassing all proxies."""
        return self.primary.server.url

    @property
    def disk(self) -> SmallDisk | None:
        """The small disk of the primary's tables; ``None`` if it has none."""
        return self._disks.get(self.primary)

    @property
    def has_standby(self) -> bool:
        """Whether there is a standby to fail over to."""
        return self._standby is not None

    async def add_standby(self) -> None:
        """Create a standby, and make the primary wait for it at each commit from then on."""
        self._standby = await asyncio.to_thread(self._open, self.primary.server)
        await self._until_streaming()
        await self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        await self.until_replicated()

    async def until_replicated(self) -> None:
        """Wait until each commit is on the standby as well."""
        await self._until(self.url, _REPLICATED)

    async def _until_streaming(self) -> None:
        await self._until(self.url, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming')")

    async def promote(self) -> Restartable[PostgresServer]:
        """Promote the standby; return the old primary, which is not changed."""
        old, new = self.primary, self._standby
        if new is None:
            raise RuntimeError("there is no standby: call add_standby before")
        await asyncio.to_thread(cast("StandbyServer", new.server).promote)
        self.primary, self._standby = new, None
        return old

    async def replace(self, old: Restartable[PostgresServer]) -> None:
        """Remove an old primary with its data, and create a new standby in its place."""
        await asyncio.to_thread(self._remove, old)
        await self.add_standby()

    def lead_to(self, node: Restartable[PostgresServer], *, delay: float = 0.0) -> None:
        """Route new connections to a server. Open connections stay."""
        for proxy in self.proxies:
            proxy.lead_to(node.port, delay=delay)

    @property
    def standby(self) -> Restartable[PostgresServer]:
        """The standby.

        Raises:
            RuntimeError: there is none.
        """
        if self._standby is None:
            raise RuntimeError("there is no standby: call add_standby before")
        return self._standby

    async def execute(self, *statements: str, url: str | None = None) -> None:
        """Execute statements on the primary, or at ``url``, even if sessions are read-only or all are in use."""
        connection = await _connect(url or self.url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def _until(self, url: str, question: str) -> None:
        async with asyncio.timeout(_LIMIT):
            while True:
                with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    connection = await _connect(url)
                    try:
                        if await connection.fetchval(question):
                            return
                    finally:
                        await connection.close()
                await asyncio.sleep(_LOOK)

    def close(self) -> None:
        """Stop all servers and unmount their disks."""
        for node in (self.primary, self._standby):
            if node is not None:
                node.close()
        for disk in self._disks.values():
            disk.close()

    def _open(self, primary: PostgresServer | None) -> Restartable[PostgresServer]:
        directory = self._directory / f"postgres-{self._made}"
        settings = {**self._settings, "port": str(free_port())}
        self._made += 1
        if primary is None:
            node = Restartable(partial(open_postgres, directory, settings=settings))
        else:
            node = Restartable[PostgresServer](partial(open_standby, primary, directory, settings=settings))
        if self._has_small_disk:
            node.restart(lambda: self._disks.update({node: SmallDisk(directory / "data")}))
        return node

    def _remove(self, node: Restartable[PostgresServer]) -> None:
        node.close()
        if (disk := self._disks.pop(node, None)) is not None:
            disk.close()
        data = node.server.log_path.parent / "data"
        shutil.rmtree(data.resolve())


async def _connect(url: str) -> asyncpg.Connection:
    """Connect as soon as the server has a free connection; override the setting that makes sessions read-only."""
    end = time.monotonic() + _LIMIT
    while True:
        try:
            return await asyncpg.connect(url, timeout=5, server_settings={"default_transaction_read_only": "off"})
        except (OSError, asyncpg.PostgresError):
            if time.monotonic() > end:
                raise
            await asyncio.sleep(_LOOK)
