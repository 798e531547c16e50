"""Runs PostgreSQL and Valkey together in one directory, which one program at a time may use."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from arqonce.embedded.errors import EmbeddedServerError
from arqonce.embedded.lock import hold_directory
from arqonce.embedded.postgres import PostgresServer, open_postgres
from arqonce.embedded.valkey import ValkeyServer, open_valkey


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Both servers, running."""

    postgres: PostgresServer
    valkey: ValkeyServer

    @property
    def database_url(self) -> str:
        """The value for DATABASE_URL, password included."""
        return self.postgres.url

    @property
    def redis_url(self) -> str:
        """The value for REDIS_URL."""
        return self.valkey.url

    def require_running(self) -> None:
        """Raise unless both servers run.

        Raises:
            EmbeddedServerError: one has ended; the text names its log.
        """
        for name, server in (("PostgreSQL", self.postgres), ("Valkey", self.valkey)):
            if (code := server.process.poll()) is not None:
                how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
                raise EmbeddedServerError(
                    f"{name} {how}, see {server.log_path}. Cure: start again; what was stored is kept."
                )


@contextmanager
def open_servers(directory: Path) -> Iterator[Servers]:
    """Run both servers with their data in ``directory``, which they keep between runs.

    Raises:
        EmbeddedServerError: a wheel is missing, the directory is in use, or a server does not start.
    """
    with (
        hold_directory(directory),
        open_postgres(directory / "postgres") as postgres,
        open_valkey(directory / "valkey") as valkey,
    ):
        yield Servers(postgres=postgres, valkey=valkey)
