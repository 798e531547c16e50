"""PostgreSQL and Valkey that can be killed, wiped and started again on their ports, each behind a proxy."""

import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from chaos.proxy import Proxy
from db.migrate import upgrade_schema
from db.settings import DatabaseSettings
from embedded import open_postgres, open_valkey
from embedded.program import Server

_CONNECTIONS = 100
"""Connections that PostgreSQL takes: more than the workers need, few enough to be used up."""


class Restartable:
    """A server that starts again on its port after it was killed. Calls wait for each other; all of them block."""

    def __init__(self, start: Callable[[], AbstractContextManager[Server]]) -> None:
        self._start, self._stack, self._lock = start, ExitStack(), threading.Lock()
        self.server = self._stack.enter_context(start())
        self.returned_at = time.monotonic()
        """When it last began to answer."""

    def crash(self, *, down: float, wipe: Path | None = None) -> None:
        """Kill it as a crash would, remove ``wipe``, and start it again ``down`` seconds later."""
        with self._lock:
            self.server.kill()
            self._keep_log()
            if wipe is not None:
                shutil.rmtree(wipe)
            time.sleep(down)
            self._stack.close()
            self.server = self._stack.enter_context(self._start())
            self.returned_at = time.monotonic()

    def _keep_log(self) -> None:
        """Put the log aside, which the next start empties."""
        log = self.server.log_path
        log.rename(log.with_name(f"{log.name}.{len(list(log.parent.glob(log.name + '*')))}"))

    def close(self) -> None:
        """Stop it in order."""
        with self._lock:
            self._stack.close()


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Both servers, their proxies, and who uses which way."""

    postgres: Restartable
    valkey: Restartable
    valkey_data: Path
    postgres_proxy: Proxy
    valkey_proxy: Proxy
    redis_password: str

    @property
    def database(self) -> DatabaseSettings:
        """How we reach PostgreSQL: past the proxy."""
        return DatabaseSettings(url=SecretStr(self.postgres.server.url))

    @property
    def redis_url(self) -> str:
        """How we reach Valkey: past the proxy."""
        return _with_login(self.valkey.server.url, self.redis_password)

    @property
    def worker_environment(self) -> dict[str, str]:
        """How workers reach both: through the proxies."""
        return {
            "DATABASE_URL": _with_port(self.postgres.server.url, self.postgres_proxy.port),
            "REDIS_URL": _with_port(self.redis_url, self.valkey_proxy.port),
        }

    @property
    def passwords(self) -> list[str]:
        """What no log may show."""
        return [urlsplit(self.postgres.server.url).password or "", self.redis_password]

    @property
    def proxies(self) -> tuple[Proxy, Proxy]:
        """Both proxies."""
        return self.postgres_proxy, self.valkey_proxy


@contextmanager
def open_servers(directory: Path) -> Iterator[Servers]:
    """Start servers and proxies with their data in ``directory``, migrate, and stop them all at the end.

    Raises:
        EmbeddedServerError: a server cannot be started here.
    """
    password = secrets.token_urlsafe(24)
    users = directory / "valkey-users"
    users.write_text(f"user default on nopass ~* &* +@all\nuser worker on >{password} ~* &* +@all\n")
    with ExitStack() as stack:
        postgres = _open(stack, open_postgres, directory / "postgres", {"max_connections": str(_CONNECTIONS)})
        valkey = _open(stack, open_valkey, directory / "valkey", {"aclfile": str(users)})
        servers = Servers(
            postgres=postgres,
            valkey=valkey,
            valkey_data=directory / "valkey" / "appendonlydir",
            postgres_proxy=stack.enter_context(Proxy.open(_port_of(postgres))),
            valkey_proxy=stack.enter_context(Proxy.open(_port_of(valkey))),
            redis_password=password,
        )
        upgrade_schema(servers.database)
        yield servers


def _open(
    stack: ExitStack,
    start: Callable[..., AbstractContextManager[Server]],
    directory: Path,
    settings: Mapping[str, str],
) -> Restartable:
    fixed = {**settings, "port": str(_free_port())}
    server = Restartable(lambda: start(directory, settings=fixed))
    stack.callback(server.close)
    return server


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def _port_of(server: Restartable) -> int:
    return urlsplit(server.server.url).port or 0


def _with_port(url: str, port: int) -> str:
    return url.replace(f":{urlsplit(url).port}/", f":{port}/")


def _with_login(url: str, password: str) -> str:
    return url.replace("://", f"://worker:{password}@")
