"""Settings of the database: its URL and timeouts. Opens no connection."""

import ssl
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict
from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError

from arqonce.addresses import PERCENT_ENCODE, require_tls_files
from arqonce.database.connecting import TARGETS
from arqonce.database.hosts import DEFAULT_PORT, Host, WrongHostsError, hosts_of, read_url, with_hosts
from arqonce.database.options import TLS_FILES, require_known, require_values
from arqonce.environment import EnvironmentSettings, PositiveDuration, at_most
from arqonce.namespace import LEDGER, require_namespace

_DRIVERS = frozenset({"postgres", "postgresql", "postgresql+asyncpg"})


_OWN_AUTHORITIES = Path("~/.postgresql/root.crt")
"""Where libpq and asyncpg look for certificate authorities by default."""

_SSL_MODES = {
    "disable": "disable",
    "allow": "allow",
    "prefer": "prefer",
    "no-verify": "require",
    "require": "verify-full",
    "verify-ca": "verify-ca",
    "verify-full": "verify-full",
}
"""asyncpg's ``ssl`` by the URL's ``sslmode``. Here ``require`` verifies the server's certificate. libpq's ``require``,
which accepts any certificate, is called ``no-verify``, as in node-postgres."""


_LONGEST_TIMEOUT = timedelta(days=1)
"""PostgreSQL's are at most 24 days, in ms."""

_Timeout = Annotated[PositiveDuration, at_most(_LONGEST_TIMEOUT)]


def is_ours(url: str) -> bool:
    """Return whether this is a URL of PostgreSQL, through asyncpg or without a driver."""
    return url.partition(":")[0].lower() in _DRIVERS


def _means_system(url: URL) -> bool:
    """Return whether the authorities are the system's, in libpq's words; then it verifies servers by default."""
    return url.query.get("sslrootcert") == "system"


def _has_own_authorities() -> bool:
    """Return whether the file is there: an account may have no home, or that of another one, as under supervisord."""
    try:
        return _OWN_AUTHORITIES.expanduser().exists()
    except (RuntimeError, OSError):
        return False


def _files_of(url: URL) -> dict[str, str]:
    names = TLS_FILES - {"sslrootcert"} if _means_system(url) else TLS_FILES
    return {name: str(file) for name, file in url.query.items() if name in names}


def _require_parts(url: URL) -> None:
    """Reject URLs that the driver would reject later, with a worse error message."""
    if not url.database:
        raise ValueError("names no database")
    if "@" in f"{url.database}{url.host}":
        raise ValueError(PERCENT_ENCODE)
    require_known(url.query)
    if "\0" in f"{url.username}{url.password}{url.database}":
        raise ValueError("has a %00, which PostgreSQL cannot take")
    files = _files_of(url)
    require_tls_files(files, trusted=("sslrootcert", "sslcrl"), certificate="sslcert", key="sslkey")
    option = "sslmode" if "sslmode" in url.query else "ssl"
    if url.query.get(option, "prefer") not in _SSL_MODES:
        raise ValueError(f"has an unknown {option}; valid are {', '.join(sorted(_SSL_MODES))}")
    if url.query.get("target_session_attrs", "any") not in TARGETS:
        raise ValueError(f"has an unknown target_session_attrs; valid are {', '.join(TARGETS)}")
    hosts_of(url)


class DatabaseSettings(EnvironmentSettings):
    """The ``DATABASE_*`` variables."""

    model_config = SettingsConfigDict(env_prefix="DATABASE_")

    url: SecretStr = Field(
        description="URL of the PostgreSQL database. Of several hosts, `host1:5432,host2:5433`, the one that "
        "can be written to is used, as with libpq. The query may contain sslmode, target_session_attrs and TLS files",
        examples=["postgresql://user@host:5432/database"],
    )
    password: SecretStr | None = Field(
        default=None, description="password, if the URL does not contain it", examples=["the password"]
    )
    connect_timeout: _Timeout = Field(
        default=timedelta(seconds=5), description="longest wait for a new connection", examples=["5s"]
    )
    statement_timeout: _Timeout = Field(
        default=timedelta(seconds=8), description="the server cancels a statement after this", examples=["8s"]
    )
    command_timeout: _Timeout = Field(
        default=timedelta(seconds=10),
        description="the client gives up on a silent server after this; longer than the statement timeout",
        examples=["10s"],
    )
    application_name: str = Field(
        default="arqonce",
        description="name of the connections in pg_stat_activity; workers use their application's name",
        examples=["billing"],
    )
    pgbouncer: bool = Field(
        default=False, description="whether the URL leads to PgBouncer in transaction mode", examples=["true"]
    )

    ledger_schema: str = Field(
        default=LEDGER,
        description="PostgreSQL schema of the tables that record jobs; the same for migrations, workers and producers",
        examples=["jobs"],
    )

    @field_validator("ledger_schema")
    @classmethod
    def _require_namespace(cls, value: str) -> str:
        return require_namespace(value)

    @field_validator("url")
    @classmethod
    def _require_postgresql(cls, value: SecretStr) -> SecretStr:
        try:
            url = read_url(value.get_secret_value())
        except WrongHostsError:
            raise
        except (ArgumentError, ValueError):
            message = "is not a URL"
            raise ValueError(message) from None  # the original text repeats the URL and its password
        if url.drivername not in _DRIVERS:
            message = f"has the scheme {url.drivername}, which is not PostgreSQL through asyncpg"
            raise ValueError(message)
        require_values(value.get_secret_value())
        _require_parts(url)
        return value

    @model_validator(mode="after")
    def _let_the_server_time_out_first(self) -> Self:
        if self.command_timeout <= self.statement_timeout:
            message = "DATABASE_COMMAND_TIMEOUT: must be longer than DATABASE_STATEMENT_TIMEOUT. Raise it."
            raise ValueError(message)
        return self

    @property
    def sqlalchemy_url(self) -> URL:
        """The URL for SQLAlchemy, with asyncpg as driver, the password, and libpq's ``sslmode`` translated."""
        url = with_hosts(self._url, self.hosts).set(drivername="postgresql+asyncpg")
        if self.password is not None:
            url = url.set(password=self.password.get_secret_value())
        if mode := self._ssl_mode:
            url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
        return url.difference_update_query(TLS_FILES)

    @property
    def tls_files(self) -> dict[str, str]:
        """TLS files by libpq's names: those in the URL; to verify without any, the system's certificate authorities."""
        system = ssl.get_default_verify_paths().cafile
        means_system = _means_system(self._url) or not _has_own_authorities()
        needs_authorities = self._ssl_mode in {"verify-ca", "verify-full"} and means_system
        files = {"sslrootcert": system} if needs_authorities and system is not None else {}
        return files | _files_of(self._url)

    @property
    def requires_tls(self) -> bool:
        """Whether a server without TLS is none for these settings."""
        return self._ssl_mode not in {None, "disable", "allow", "prefer"}

    @property
    def _ssl_mode(self) -> str | None:
        """The URL's ``sslmode`` as asyncpg's ``ssl``; ``None`` if the URL has none."""
        query = self._url.query
        asked = query.get("sslmode", query.get("ssl", "verify-full" if _means_system(self._url) else None))
        return None if asked is None else _SSL_MODES[str(asked)]

    @property
    def _url(self) -> URL:
        return read_url(self.url.get_secret_value())

    @property
    def hosts(self) -> tuple[Host, ...]:
        """The servers to choose from, in the order of the URL; empty if it names none."""
        return hosts_of(self._url)

    @property
    def target_session_attrs(self) -> str:
        """Which of the servers to use, as in libpq; by default one that can be written to."""
        return str(self._url.query.get("target_session_attrs", "read-write"))

    @property
    def location(self) -> str:
        """Hosts, ports and database, without user and password, for logs and errors."""
        servers = self.hosts or (Host("localhost", DEFAULT_PORT),)
        return f"{','.join(map(str, servers))}/{self._url.database}"
