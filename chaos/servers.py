"""PostgreSQL and Valkey that can be killed, wiped and replaced, each behind proxies, as the plan of a run needs."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr

from arqonce.database.settings import DatabaseSettings
from arqonce.ledger.schema import upgrade_schemas
from chaos.cluster import Cluster
from chaos.proxy import Proxy
from chaos.queues import Queue, open_queue
from jobs.registry import REGISTRY

_CONNECTIONS = 100
"""max_connections of PostgreSQL: more than the workers need, and few enough to be used up."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What the faults of a run need beyond one server of each kind."""

    has_standby: bool = False
    has_small_disk: bool = False
    has_replica: bool = False
    has_sentinels: bool = False


@dataclass(frozen=True, kw_only=True)
class Servers:
    """All servers and proxies, and the URLs for their users."""

    postgres: Cluster
    valkey: Queue
    postgres_proxy: Proxy
    calm_proxy: Proxy

    @property
    def database(self) -> DatabaseSettings:
        """PostgreSQL's primary, bypassing the proxies: for the run itself."""
        return DatabaseSettings(url=SecretStr(self.postgres.url))

    @property
    def producers_database(self) -> DatabaseSettings:
        """PostgreSQL for producers: an address that follows the primary with a delay and injects no other faults."""
        return DatabaseSettings(url=SecretStr(_with_port(self.postgres.url, self.calm_proxy.port)))

    @property
    def redis_url(self) -> str:
        """Valkey's primary, bypassing the proxies: for the run itself."""
        return self.valkey.url

    @property
    def worker_environment(self) -> dict[str, str]:
        """Environment of workers, which use both servers through the proxies."""
        return {
            "DATABASE_URL": _with_port(self.postgres.url, self.postgres_proxy.port),
            "REDIS_URL": self.valkey.worker_url,
        }

    @property
    def passwords(self) -> list[str]:
        """Passwords that no log may contain."""
        return [urlsplit(self.postgres.url).password or "", *self.valkey.secrets]

    @property
    def proxies(self) -> tuple[Proxy, ...]:
        """The proxies between the workers and the servers; the first one is PostgreSQL's."""
        return self.postgres_proxy, *self.valkey.proxies


@contextmanager
def open_servers(directory: Path, needs: Needs = Needs()) -> Iterator[Servers]:
    """Start servers and proxies with data in ``directory``, apply the migrations, and stop all at the end.

    Raises:
        EmbeddedServerError: a server cannot be started here.
    """
    password = secrets.token_urlsafe(24)
    with ExitStack() as stack:
        settings = {"max_connections": str(_CONNECTIONS)}
        postgres = Cluster(directory, settings, has_small_disk=needs.has_small_disk)
        stack.callback(postgres.close)
        postgres.proxies = tuple(stack.enter_context(Proxy.open(postgres.primary.port)) for _ in range(2))
        queue = open_queue(stack, directory, password, has_replica=needs.has_replica, has_sentinels=needs.has_sentinels)
        postgres_proxy, calm_proxy = postgres.proxies
        servers = Servers(postgres=postgres, valkey=queue, postgres_proxy=postgres_proxy, calm_proxy=calm_proxy)
        upgrade_schemas(servers.database, REGISTRY.schemas)
        yield servers


def _with_port(url: str, port: int) -> str:
    return url.replace(f":{urlsplit(url).port}/", f":{port}/")
