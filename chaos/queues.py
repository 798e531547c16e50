"""The Valkeys of a run: a single one, a primary and a replica behind one address, or both under Sentinels."""

import asyncio
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from redis import Redis

from arqonce.embedded import ValkeyServer, open_sentinels, open_valkey
from arqonce.embedded.errors import EmbeddedServerError
from arqonce.embedded.sentinel import MASTER_NAME
from chaos.proxy import Proxy
from chaos.restartable import Restartable, free_port

_LIMIT = 30.0
"""Longest wait, in seconds, for a replica to follow."""

_LOOK = 0.05
"""Polling interval in seconds."""

_DOWN_AFTER = timedelta(milliseconds=1500)
"""After how long the Sentinels replace a silent primary: longer than delays and cuts make it silent."""

_WATCH = 0.25
"""Interval, in seconds, of checks for failovers that no fault of ours has requested."""


class Queue(ABC):
    """The servers of the queue, and the faults that can hit them."""

    def __init__(self, password: str) -> None:
        self._login = f"worker:{password}"
        self.secrets = [password]
        """Secrets that no log may contain."""
        self.proxies: tuple[Proxy, ...] = ()
        """The proxies between the workers and the servers."""
        self.worker_url = self.producer_url = ""
        """The URLs for workers and producers."""
        self.lock = asyncio.Lock()
        """Held by faults, so that one at a time hits the queue."""
        self.lost_at = 0.0
        """Writes acknowledged before this time may be lost; monotonic seconds."""

    @property
    def url(self) -> str:
        """The primary's URL, bypassing all proxies."""
        return self._url_of(urlsplit(self._primary_url).port or 0)

    @property
    @abstractmethod
    def _primary_url(self) -> str: ...

    @abstractmethod
    def crash(self, *, down: float, wipe: bool) -> None:
        """Kill the primary and restart it ``down`` seconds later; ``wipe`` removes its data."""

    @abstractmethod
    def fail_over(self, random: Random) -> bool:
        """Promote the replica after the primary has failed; return whether there is a replica."""

    @abstractmethod
    def demote(self, random: Random) -> bool:
        """Exchange primary and replica without closing connections; return whether there is a replica."""

    @abstractmethod
    def is_settled(self) -> bool:
        """Return whether all agree on the primary, so that nothing that it acknowledges now can be lost."""

    async def watch(self) -> None:
        """Update ``lost_at`` when acknowledged writes may be lost without a fault of ours, until cancelled."""
        while True:
            if not await asyncio.to_thread(self.is_settled):
                self.lost_at = time.monotonic()
            await asyncio.sleep(_WATCH)

    def _url_of(self, port: int) -> str:
        return f"redis://{self._login}@127.0.0.1:{port}/0"


class SingleQueue(Queue):
    """A single Valkey. Producers bypass the proxy, so that only its crashes close their connections."""

    def __init__(self, stack: ExitStack, directory: Path, settings: Mapping[str, str], password: str) -> None:
        """Start the server."""
        super().__init__(password)
        self._node = _open_valkey(stack, directory / "valkey", settings)
        self.proxies = (stack.enter_context(Proxy.open(self._node.port)),)
        self.worker_url, self.producer_url = self._url_of(self.proxies[0].port), self._url_of(self._node.port)

    @property
    def _primary_url(self) -> str:
        return self._node.server.url

    def crash(self, *, down: float, wipe: bool) -> None:
        """Kill and restart the server."""
        self._node.crash(down=down, wipe=_append_only_file(self._node.server) if wipe else None)
        self.lost_at = self._node.returned_at

    def fail_over(self, random: Random) -> bool:  # noqa: ARG002 - nothing is random
        """Do nothing: there is no replica."""
        return False

    demote = fail_over

    def is_settled(self) -> bool:
        """Return true: there is only one server."""
        return True


class PairedQueue(Queue):
    """A primary and a replica behind an address that follows the primary with a delay, as in managed services.

    Producers have another such address, whose proxy injects no other faults.
    """

    def __init__(self, stack: ExitStack, directory: Path, settings: Mapping[str, str], password: str) -> None:
        """Start both servers."""
        super().__init__(password)
        self._primary, self._replica = (_open_valkey(stack, directory / f"valkey-{n}", settings) for n in range(2))
        addresses = [stack.enter_context(Proxy.open(self._primary.port)) for _ in range(2)]
        self._addresses, self.proxies = addresses, (addresses[0],)
        self.worker_url, self.producer_url = (self._url_of(address.port) for address in addresses)
        _follow(self._replica, self._primary)

    @property
    def _primary_url(self) -> str:
        return self._primary.server.url

    def crash(self, *, down: float, wipe: bool) -> None:
        """Kill the primary and restart it as the primary."""
        self._primary.crash(down=down, wipe=_append_only_file(self._primary.server) if wipe else None)
        self.lost_at = self._primary.returned_at

    def fail_over(self, random: Random) -> bool:
        """Kill the primary, promote the replica up to 1.5 s later, and redirect the address up to 2 s after that."""
        old = self._primary
        old.server.kill()
        time.sleep(random.uniform(0.2, 1.5))
        delay = random.uniform(0.0, 2.0)
        self._promote(delay)
        time.sleep(delay)
        old.crash(down=0.1)
        _follow(old, self._primary)
        self.lost_at = time.monotonic()
        return True

    def demote(self, random: Random) -> bool:
        """Exchange the roles with REPLICAOF. Clients keep their connections, which now lead to a replica."""
        old = self._primary
        _command(old, "REPLICAOF", "127.0.0.1", self._replica.port)
        self._promote(random.uniform(0.0, 3.0))
        self.lost_at = time.monotonic()
        _wait_for_link(old)
        return True

    def is_settled(self) -> bool:
        """Return true: only our faults change the primary."""
        return True

    def _promote(self, delay: float) -> None:
        _command(self._replica, "REPLICAOF", "NO", "ONE")
        self._primary, self._replica = self._replica, self._primary
        for proxy in self._addresses:
            proxy.lead_to(self._primary.port, delay=delay)


class WatchedQueue(Queue):
    """A primary and a replica under Sentinels, each announced by the port of its proxy. Producers use it, too."""

    def __init__(self, stack: ExitStack, directory: Path, settings: Mapping[str, str], password: str) -> None:
        """Start two servers and three Sentinels."""
        super().__init__(password)

        def announce(port: int) -> int:
            self.proxies += (stack.enter_context(Proxy.open(port)),)
            return self.proxies[-1].port

        secret = secrets.token_urlsafe(24)
        self.secrets.append(secret)
        options: dict[str, Any] = {"sentinel_password": secret, "announce": announce, "down_after": _DOWN_AFTER}
        self._sentinels = stack.enter_context(open_sentinels(directory / "sentinels", settings=settings, **options))
        hosts = self._sentinels.hosts
        url = f"redis+sentinel://{self._login}@{hosts}/{MASTER_NAME}/0?sentinel_password={secret}"
        self.worker_url = self.producer_url = url

    @property
    def _primary_url(self) -> str:
        return self._sentinels.primary.url

    def crash(self, *, down: float, wipe: bool) -> None:
        """Kill and restart the primary. The Sentinels may fail over meanwhile; then it restarts as a replica."""
        server = self._sentinels.primary
        server.kill()
        if wipe:
            _wipe(server)
        time.sleep(down)
        self._sentinels.revive()
        self.lost_at = time.monotonic()

    def fail_over(self, random: Random) -> bool:
        """Request a failover from the Sentinels, or kill the primary and let them detect it."""
        if random.random() < 0.5:
            self._sentinels.failover()
        else:
            self._sentinels.wait_for_failover(self._sentinels.kill_primary())
            self._sentinels.revive()
        self._sentinels.wait_until_replicated()
        self.lost_at = time.monotonic()
        return True

    def demote(self, random: Random) -> bool:  # noqa: ARG002 - nothing is random
        """Request a failover from the Sentinels. Unlike a manual demotion, it closes clients' connections."""
        self._sentinels.failover()
        self._sentinels.wait_until_replicated()
        self.lost_at = time.monotonic()
        return True

    def pair(self) -> tuple[ValkeyServer, ValkeyServer]:
        """Return the primary and the replica."""
        return self._sentinels.primary, self._sentinels.replica

    def kill_primary(self) -> None:
        """Kill the primary. The Sentinels detect it."""
        self._sentinels.kill_primary()

    def revive(self) -> None:
        """Restart the killed server, and wait until it follows the new primary."""
        self._sentinels.revive()

    def is_settled(self) -> bool:
        """Return whether the Sentinels' view agrees with the servers' roles."""
        try:
            return self._sentinels.is_settled()
        except EmbeddedServerError:
            return False


def open_queue(stack: ExitStack, directory: Path, password: str, *, has_replica: bool, has_sentinels: bool) -> Queue:
    """Start the servers that the run needs."""
    users = directory / "valkey-users"
    users.write_text(f"user default on nopass ~* &* +@all\nuser worker on >{password} ~* &* +@all\n")
    kind = WatchedQueue if has_sentinels else PairedQueue if has_replica else SingleQueue
    return kind(stack, directory, {"aclfile": str(users), "repl-diskless-sync-delay": "0"}, password)


def _open_valkey(stack: ExitStack, directory: Path, settings: Mapping[str, str]) -> Restartable[ValkeyServer]:
    node = Restartable(partial(open_valkey, directory, settings={**settings, "port": str(free_port())}))
    stack.callback(node.close)
    return node


def _append_only_file(server: ValkeyServer) -> Path:
    return server.log_path.parent / "appendonlydir"


def _wipe(server: ValkeyServer) -> None:
    for file in _append_only_file(server).iterdir():
        file.unlink()


def _command(node: Restartable[ValkeyServer], *command: str | int) -> Any:  # noqa: ANN401 - Valkey's answer
    with Redis(port=node.port) as redis:
        return redis.execute_command(*command)


def _follow(node: Restartable[ValkeyServer], primary: Restartable[ValkeyServer]) -> None:
    """Make a server a replica, and wait until it is connected to the primary."""
    _command(node, "REPLICAOF", "127.0.0.1", primary.port)
    _wait_for_link(node)


def _wait_for_link(node: Restartable[ValkeyServer]) -> None:
    end = time.monotonic() + _LIMIT
    while _command(node, "ROLE")[3] != b"connected":
        if time.monotonic() > end:
            raise TimeoutError(f"the replica at port {node.port} does not follow: see {node.server.log_path}")
        time.sleep(_LOOK)
