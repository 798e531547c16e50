"""Runs Valkey with high availability as in its manual: a primary, a replica, and three Sentinels."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from arqonce.embedded.errors import EmbeddedServerError
from arqonce.embedded.lock import hold_directory
from arqonce.embedded.process import stop_leftover
from arqonce.embedded.program import Program, free_port, open_private, run_program
from arqonce.embedded.valkey import STOP_STEPS, ValkeyServer, find_valkey, open_valkey

MASTER_NAME = "mymaster"
"""The primary's name in the Sentinels' configuration."""

_SENTINELS, _QUORUM = 3, 2

_PERIODS_MS = {"info-period": 200, "ping-period": 100, "ask-period": 100, "publish-period": 200}
"""Periods of the Sentinels' checks, in milliseconds. The defaults are seconds, for networks and not for loopback."""

_LIMIT = timedelta(seconds=30)
"""Longest wait until the Sentinels know each other, or agree on a new primary."""

_ASK_AGAIN = timedelta(seconds=2)
"""How long a requested failover may take before it is requested again."""

_LOOK = timedelta(milliseconds=50)
"""Polling interval of waits."""


class Sentinels:
    """A running primary, replica and three Sentinels. Methods block. Not thread-safe."""

    def __init__(  # noqa: PLR0913 - each is an option of open_sentinels
        self,
        directory: Path,
        stack: ExitStack,
        *,
        settings: Mapping[str, str],
        password: str,
        sentinel_password: str,
        announce: Callable[[int], int],
        down_after: timedelta,
    ) -> None:
        self._down_after_ms = round(down_after / timedelta(milliseconds=1))
        self.password, self.sentinel_password = password, sentinel_password
        self.ports: list[int] = []
        """The Sentinels' ports."""
        self._directory, self._settings, self._outer = directory, settings, stack
        self._announced: dict[int, int] = {}
        """The servers' own ports by their announced ports."""
        self._servers: dict[int, ValkeyServer] = {}
        self._stacks: dict[int, ExitStack] = {}
        for _ in range(2):
            port = free_port()
            self._announced[announce(port)] = port

    @property
    def hosts(self) -> str:
        """The Sentinels' hosts and ports, as in a ``redis+sentinel://`` URL."""
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @property
    def servers(self) -> tuple[ValkeyServer, ...]:
        """Both servers, running or not, in the order of their first start."""
        return tuple(self._servers[port] for port in self._announced.values())

    @property
    def address(self) -> tuple[str, int]:
        """The primary's host and port, as the Sentinels report them to clients."""
        for port in self.ports:
            with suppress(RedisError, OSError), self._sentinel(port) as client:
                host, told = client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)
                return host, int(told)
        raise EmbeddedServerError("No Sentinel answers. Cure: see their logs.")

    @property
    def primary(self) -> ValkeyServer:
        """The server that the Sentinels report as primary."""
        return self._servers[self._announced[self.address[1]]]

    @property
    def replica(self) -> ValkeyServer:
        """The other server."""
        (other,) = (server for server in self.servers if server is not self.primary)
        return other

    def failover(self) -> None:
        """Promote the replica with ``SENTINEL FAILOVER``; return when the Sentinels report it and it accepts writes.

        Repeats the request if the Sentinels reject it, as they do shortly after a failover, or abort the failover.

        Raises:
            EmbeddedServerError: there is no suitable replica, or it took longer than 30 s.
        """
        epoch, asked_at = self._epoch(), 0.0

        def is_over() -> bool:
            nonlocal asked_at
            if self._epoch() > epoch:
                return self._role(self.primary) == b"master"
            if time.monotonic() - asked_at > _ASK_AGAIN.total_seconds() and self._ask_for_failover():
                asked_at = time.monotonic()
            return False

        self._wait_until(is_over, "failed over")

    def _ask_for_failover(self) -> bool:
        with suppress(RedisError), self._sentinel(self.ports[0]) as client:
            client.execute_command("SENTINEL", "FAILOVER", MASTER_NAME)
            return True
        return False

    def _epoch(self) -> int:
        """Return the configuration epoch, which each failover raises; 0 while the Sentinel does not answer."""
        with suppress(RedisError, OSError), self._sentinel(self.ports[0]) as client:
            return int(_pairs(client.execute_command("SENTINEL", "MASTER", MASTER_NAME))["config-epoch"])
        return 0

    def kill_primary(self) -> tuple[str, int]:
        """Kill the primary; return its host and port. The Sentinels detect it after ``down_after`` and fail over."""
        before = self.address
        self.primary.kill()
        return before

    def wait_for_failover(self, before: tuple[str, int]) -> None:
        """Wait until the Sentinels report another primary than ``before`` and it accepts writes."""
        self._wait_until(lambda: self.address != before and self._role(self.primary) == b"master", "elected a primary")

    def revive(self) -> None:
        """Restart each server that has ended, as a replica if the other one is the primary; wait for replication."""
        for announced, port in self._announced.items():
            if self._servers[port].process.poll() is not None:
                self._stacks[port].close()
                self._start_server(announced, port, primary=self.address[1])
        self.wait_until_replicated()

    def wait_until_replicated(self) -> None:
        """Wait until the replica follows the primary and all Sentinels know it, so that a failover is possible."""
        self._wait_until(self.is_settled, "agreed")

    def start(self) -> None:
        """Start all servers and Sentinels. Call once."""
        primary, _ = self._announced
        for announced, port in self._announced.items():
            self._stacks[port] = ExitStack()
            self._outer.callback(self._stacks[port].close)
            self._start_server(announced, port, primary=primary)
        for number in range(_SENTINELS):
            self._start_sentinel(number, primary)
        self.wait_until_replicated()

    def _start_server(self, announced: int, port: int, *, primary: int) -> None:
        settings = {
            "port": str(port),
            "replica-announce-ip": "127.0.0.1",
            "replica-announce-port": str(announced),
            "repl-diskless-sync-delay": "0",
            "repl-ping-replica-period": "1",
            **({"requirepass": self.password, "primaryauth": self.password} if self.password else {}),
            **({} if announced == primary else {"replicaof": f"127.0.0.1 {primary}"}),
            **self._settings,
        }
        name = f"valkey-{list(self._announced).index(announced)}"
        self._servers[port] = self._stacks[port].enter_context(open_valkey(self._directory / name, settings=settings))

    def _start_sentinel(self, number: int, primary: int) -> None:
        directory = self._directory / f"sentinel-{number}"
        directory.mkdir(exist_ok=True)
        stop_leftover(directory / "sentinel.pid", f" {directory / 'sentinel.conf'} ", STOP_STEPS)
        program = Program(
            name="Sentinel",
            command=partial(self._sentinel_command, directory, primary),
            answers=self._sentinel_answers,
            log_path=directory / "sentinel.log",
            stop_steps=STOP_STEPS,
        )
        _, port = self._outer.enter_context(run_program(program, {}))
        self.ports.append(port)
        with self._sentinel(port) as client:
            client.execute_command("SENTINEL", "DEBUG", *chain.from_iterable(_PERIODS_MS.items()))

    def _sentinel_command(self, directory: Path, primary: int, port: int) -> list[str]:
        """Write the configuration file, which a Sentinel rewrites itself, and return the command."""
        lines = {
            "bind": "127.0.0.1",
            "port": str(port),
            "dir": f'"{directory}"',
            "pidfile": f'"{directory / "sentinel.pid"}"',
            "set-proc-title": "no",  # the command line must keep the path, which identifies a leftover process
            "sentinel monitor": f"{MASTER_NAME} 127.0.0.1 {primary} {_QUORUM}",
            "sentinel down-after-milliseconds": f"{MASTER_NAME} {self._down_after_ms}",
            "sentinel failover-timeout": f"{MASTER_NAME} 1000",
            **({"sentinel auth-pass": f"{MASTER_NAME} {self.password}"} if self.password else {}),
            **({"requirepass": self.sentinel_password} if self.sentinel_password else {}),
        }
        path = directory / "sentinel.conf"
        with open_private(path) as file:
            file.write("".join(f"{name} {value}\n" for name, value in lines.items()).encode())
        return [str(find_valkey()), str(path), "--sentinel"]

    def _sentinel_answers(self, pid: int, port: int) -> bool:
        with suppress(RedisError, OSError), self._sentinel(port) as client:
            return bool(client.info("server")["process_id"] == pid)
        return False

    def is_settled(self) -> bool:
        """Return whether the replica follows the primary and all Sentinels know it."""
        return all(map(self._knows_all, self.ports)) and self._role(self.primary) == b"master" and self._follows()

    def _knows_all(self, port: int) -> bool:
        with suppress(RedisError, OSError), self._sentinel(port) as client:
            state = _pairs(client.execute_command("SENTINEL", "MASTER", MASTER_NAME))
            replicas = client.execute_command("SENTINEL", "REPLICAS", MASTER_NAME)
            return (
                state["flags"] == "master"
                and int(state["num-other-sentinels"]) == _SENTINELS - 1
                and [_pairs(replica)["flags"] for replica in replicas] == ["slave"]
            )
        return False

    def _follows(self) -> bool:
        with suppress(RedisError, OSError), self._client(self.replica) as client:
            role: list[Any] = client.execute_command("ROLE")
            return [*role[:1], *role[3:4]] == [b"slave", b"connected"]
        return False

    def _role(self, server: ValkeyServer) -> object:
        with suppress(RedisError, OSError), self._client(server) as client:
            return client.execute_command("ROLE")[0]
        return None

    def _client(self, server: ValkeyServer) -> Any:  # noqa: ANN401  redis-py's types mix in its asynchronous client
        return Redis.from_url(server.url, socket_timeout=1, socket_connect_timeout=1)

    def _sentinel(self, port: int) -> Any:  # noqa: ANN401  see above
        password = self.sentinel_password or None
        return Redis(port=port, password=password, decode_responses=True, socket_timeout=1, socket_connect_timeout=1)

    def _wait_until(self, state: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _LIMIT.total_seconds()
        while not state():
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"The Sentinels have not {what} within {_LIMIT.total_seconds():.0f} s. Cure: see the logs in "
                    f"{self._directory}."
                )
            time.sleep(_LOOK.total_seconds())


@contextmanager
def open_sentinels(  # noqa: PLR0913 - each is an option
    directory: Path,
    *,
    settings: Mapping[str, str] = MappingProxyType({}),
    password: str = "",
    sentinel_password: str = "",
    announce: Callable[[int], int] = int,
    down_after: timedelta = timedelta(milliseconds=500),
) -> Iterator[Sentinels]:
    """Run two Valkeys and three Sentinels with their data in ``directory``, which must be new.

    ``settings`` apply to both Valkeys; ``password`` is theirs, ``sentinel_password`` the Sentinels'. ``announce`` maps
    a Valkey's own port to the port that it announces, for example a proxy's. A primary that does not answer for
    ``down_after`` is replaced about a second later. Starting takes about a second.

    Raises:
        EmbeddedServerError: the wheel is missing, the directory is in use, or a server does not start.
    """
    directory = directory.resolve()
    with hold_directory(directory), ExitStack() as stack:
        sentinels = Sentinels(
            directory,
            stack,
            settings=settings,
            password=password,
            sentinel_password=sentinel_password,
            announce=announce,
            down_after=down_after,
        )
        sentinels.start()
        yield sentinels


def _pairs(reply: list[str] | dict[str, str]) -> dict[str, str]:
    """Return the reply as a dict; before RESP3 the server sends a list."""
    return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
