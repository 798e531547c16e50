"""Options that people write into the query of DATABASE_URL: which are used, and what to do instead of the others."""

from collections.abc import Mapping, Sequence

from arqonce.addresses import PERCENT_ENCODE
from arqonce.misspelt import meant_among

TLS_FILES = frozenset({"sslrootcert", "sslcert", "sslkey", "sslcrl"})
"""libpq's names for TLS files: trusted certificate authorities, client certificate and key, revoked certificates."""

_USED = TLS_FILES | {"ssl", "sslmode", "host", "port", "target_session_attrs", "krbsrvname", "gsslib"}
"""By asyncpg's or libpq's names."""

_ONCE = _USED - {"host", "port"}

_DEFAULT = "the connection goes without it"
_POOL = "there are as many connections as WORKER_MAX_JOBS and three more"
_POOLER = "behind PgBouncer set DATABASE_PGBOUNCER=true"
_SEARCH_PATH = "set it for the role, ALTER ROLE ... SET search_path; the ledger's schema is DATABASE_LEDGER_SCHEMA"
_BEFORE = "write it before the host, user:password@host"

_INSTEAD = {
    "user": _BEFORE,
    "username": _BEFORE,
    "password": f"{_BEFORE}, or set DATABASE_PASSWORD",
    "dbname": "write it after the host, host/database",
    "database": "write it after the host, host/database",
    "connect_timeout": "set DATABASE_CONNECT_TIMEOUT",
    "timeout": "set DATABASE_CONNECT_TIMEOUT",
    "command_timeout": "set DATABASE_COMMAND_TIMEOUT",
    "statement_timeout": "set DATABASE_STATEMENT_TIMEOUT",
    "application_name": "set DATABASE_APPLICATION_NAME",
    "fallback_application_name": "set DATABASE_APPLICATION_NAME",
    "options": "set for the role what it sets, ALTER ROLE ... SET; the ledger's schema is DATABASE_LEDGER_SCHEMA",
    "server_settings": "set them for the role, ALTER ROLE ... SET",
    "search_path": _SEARCH_PATH,
    "schema": _SEARCH_PATH,
    "currentSchema": _SEARCH_PATH,
    "pgbouncer": _POOLER,
    "statement_cache_size": _POOLER,
    "prepared_statement_cache_size": _POOLER,
    "prepareThreshold": _POOLER,
    "pool_size": _POOL,
    "max_overflow": _POOL,
    "pool_timeout": _POOL,
    "connection_limit": _POOL,
    "hostaddr": "write the address as the host",
    "service": "write host, user and database into the URL",
    "servicefile": "write host, user and database into the URL",
    "passfile": "PGPASSFILE names it",
    "sslpassword": "use a key without a password, readable by its owner alone",
    "sslcrldir": "name one file with sslcrl",
    "ssl_min_protocol_version": "TLS 1.2 is the least anyway",
    "ssl_max_protocol_version": "limit it at the server",
    "channel_binding": "sslmode=verify-full makes sure of the server",
    "require_auth": "sslmode=verify-full makes sure of the server",
    "requirepeer": "sslmode=verify-full makes sure of the server",
    "requiressl": "write sslmode=require",
    "client_encoding": "it is UTF-8",
    "replication": "jobs need none",
    "load_balance_hosts": "jobs need the server that can be written to",
    "min_protocol_version": _DEFAULT,
    "max_protocol_version": _DEFAULT,
    "keepalives": _DEFAULT,
    "keepalives_idle": _DEFAULT,
    "keepalives_interval": _DEFAULT,
    "keepalives_count": _DEFAULT,
    "tcp_user_timeout": _DEFAULT,
    "gssencmode": _DEFAULT,
    "gssdelegation": _DEFAULT,
    "sslnegotiation": _DEFAULT,
    "sslcompression": _DEFAULT,
    "sslcertmode": _DEFAULT,
    "sslkeylogfile": _DEFAULT,
    "sslsni": _DEFAULT,
    "scram_client_key": _DEFAULT,
    "scram_server_key": _DEFAULT,
}
"""Options of libpq, of drivers and of other libraries, with the cure."""


def require_values(url: str) -> None:
    """Raise if the URL's query has an option without ``=``, which SQLAlchemy skips: TLS would be off unawares.

    Raises:
        ValueError: it has; the text repeats nothing of the URL.
    """
    before, at, after = url.partition("@")
    for option in (after if at else before).partition("?")[2].split("&"):
        if option and "=" not in option:
            raise ValueError(
                PERCENT_ENCODE if "@" in option else "has an option without a value: write it as name=value"
            )


def require_known(query: Mapping[str, str | Sequence[str]]) -> None:
    """Raise for the first option that is not used, or that is there twice.

    Raises:
        ValueError: the text names the option and its cure, no value.
    """
    if twice := [name for name, value in query.items() if name in _ONCE and not isinstance(value, str)]:
        raise ValueError(f"has the option {twice[0]} twice: leave one of them out")
    if query.keys() >= {"ssl", "sslmode"}:
        raise ValueError("has both ssl and sslmode, which mean the same: leave one of them out")
    for name in sorted(query.keys() - _USED):
        if instead := _INSTEAD.get(name):
            raise ValueError(f"has the option {name}: leave it out, {instead}")
        raise ValueError(f"has an option that there is not: {meant_among(sorted(_USED), name)}")
