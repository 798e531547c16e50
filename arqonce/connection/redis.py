"""Builds connections to Redis or Valkey with timeouts, and errors that name the cure. Knows no job."""

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from socket import gaierror
from typing import Any, TypeVar

import redis
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
    WatchError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from arqonce.connection.primary import (
    ClusterError,
    ReplicaError,
    SentinelPortError,
    StaleConnectionError,
    keep_to_primary,
    refuses_writes,
)
from arqonce.connection.sentinel import SentinelError, SentinelTimeoutError
from arqonce.connection.tls import tls_problem
from arqonce.connection.url import RedisURL, RedisURLError, read_redis_url, require_files
from arqonce.failures import QueueUnavailableError
from arqonce.unreachable import why_local, why_unreachable

RedisT = TypeVar("RedisT", bound=Redis)

_CONNECT_TIMEOUT = timedelta(seconds=3)
"""Longest wait for a connection: detects a host that drops packets."""

_COMMAND_TIMEOUT = timedelta(seconds=5)
"""Longest wait for a reply. redis-py has no limit by default and would hang on a half-open connection."""

_CHECK_IDLE_AFTER = timedelta(seconds=15)
"""A connection that was idle for longer than this is checked with PING before use."""

CLOSED = "the client was closed"
"""Error text of a connection that the client itself closed."""

RETRIES = 3
"""Most retries of a command after a lost connection, 50 to 500 ms apart. A timeout is not retried: a server that does
not answer rarely recovers, and four timeouts in a row are longer than web servers wait."""


def build_redis(
    url: str, client: type[RedisT], *, password: str | None = None, max_connections: int = 20, retries: int = RETRIES
) -> RedisT:
    """Construct a client of class ``client``. It connects at its first command; ``rediss://`` verifies the server.

    Each new connection checks that the server is a primary, with one round trip.

    Raises:
        QueueUnavailableError: the URL is not a Redis URL.
    """
    with _told_of_url():
        require_files(address := read_redis_url(url))
        options = _options(address, password) | _limits(max_connections)
        options["retry"] = Retry(_backoff(), retries, supported_errors=(RedisConnectionError,))
        pool = BlockingConnectionPool.from_url(address.plain, **options)
        keep_to_primary(pool, address)
        pool.connection_class(**pool.connection_kwargs)  # does not connect, but rejects unknown options
    built = client(connection_pool=pool)
    built.auto_close_connection_pool = True
    return built


def build_sync_redis(url: str, *, password: str | None = None, max_connections: int = 20) -> redis.Redis:
    """Construct redis-py's blocking client, with the rules of ``build_redis``."""
    with _told_of_url():
        require_files(address := read_redis_url(url))
        options = _options(address, password) | _limits(max_connections)
        options["retry"] = redis.retry.Retry(_backoff(), RETRIES, supported_errors=(RedisConnectionError,))
        pool = redis.BlockingConnectionPool.from_url(address.plain, **options)
        keep_to_primary(pool, address)
        pool.connection_class(**pool.connection_kwargs)
    built = redis.Redis(connection_pool=pool)
    built.auto_close_connection_pool = True
    return built


def _backoff() -> ExponentialBackoff:
    return ExponentialBackoff(cap=0.5, base=0.05)


@contextmanager
def _told_of_url() -> Iterator[None]:
    example = "a URL such as redis://host:6379/0 or rediss://host:6379/0, with redis-py's options"
    try:
        yield
    except RedisURLError as error:
        raise QueueUnavailableError(f"REDIS_URL is not {example}: it {error}") from None
    except (ValueError, TypeError, AttributeError, RedisError):  # for instance for None or a number
        # The original text may repeat the URL with its password.
        raise QueueUnavailableError(f"REDIS_URL is not {example}") from None


def _options(address: RedisURL, password: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {} if password is None else {"password": password}
    if address.is_tls:
        # arq and redis-py 5 leave it off; a server that need not be verified need not have that name.
        options["ssl_check_hostname"] = address.is_verified
    if not address.plain.startswith("unix:"):
        options |= {"socket_keepalive": True, "socket_connect_timeout": _CONNECT_TIMEOUT.total_seconds()}
    return options


_HAS_DRIVER_INFO = "driver_info" in inspect.signature(redis.connection.AbstractConnection).parameters

_UNNAMED: Mapping[str, None] = {"driver_info": None} if _HAS_DRIVER_INFO else {"lib_name": None, "lib_version": None}
"""Options that make redis-py send no CLIENT SETINFO. With it, redis-py 5.3 sends the greeting before it checks the
password, and without a password recurses endlessly. The second form is deprecated since 7.2, which has the first."""


def _limits(max_connections: int) -> dict[str, Any]:
    return {
        "max_connections": max_connections,
        "timeout": _COMMAND_TIMEOUT.total_seconds(),
        "socket_timeout": _COMMAND_TIMEOUT.total_seconds(),
        **_UNNAMED,
        "protocol": 2,  # the default up to redis-py 7
        "health_check_interval": _CHECK_IDLE_AFTER.total_seconds(),
        "retry_on_error": [RedisConnectionError, ConnectionError],
    }


_PASSING = ("OOM", "READONLY", "MISCONF", "NOREPLICAS", "LOADING", "BUSY", "TRYAGAIN", "MASTERDOWN", "CLUSTERDOWN")
"""Error replies of a server that is full, starting, or not the primary. They are temporary."""


def is_outage(error: Exception) -> bool:
    """Return whether the command may succeed later: Redis is unreachable, full, starting, or not the primary."""
    if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError | WatchError):
        return True
    return is_refusal(error)


def is_refusal(error: Exception) -> bool:
    """Return whether Redis answers but refuses commands for now: it is full, starting, or not the primary."""
    return (
        isinstance(error, OutOfMemoryError | StaleConnectionError)
        or said(error).startswith(_PASSING)
        or refuses_writes(error)
    )


def has_answered(error: object) -> bool:
    """Return whether Redis has answered, with a refusal of the command or of the connection."""
    if not isinstance(error, RedisError):
        return False
    return isinstance(error, ResponseError) or is_refusal(error) or why_turned_away(error) is not None


_IN_PIPELINE = re.compile(r"Command # \d+ \(.*\) of pipeline caused error: (?:\((['\"])(.*)\1,?\)|(.*))", re.DOTALL)


def said(error: Exception) -> str:
    """Return Redis's reply, without the command that redis-py adds in pipelines: that may hold people's data."""
    text = str(error)
    found = _IN_PIPELINE.fullmatch(text)
    return text if found is None else found[2] or found[3]


def location(url: str) -> str:
    """Return the address of Redis from its URL, without user and password, for logs and errors."""
    try:
        return read_redis_url(url).location
    except ValueError:
        return "an unreadable REDIS_URL"


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Convert errors of Redis to one whose text names the problem and the cure.

    Raises:
        QueueUnavailableError: in place of redis-py's errors.
    """
    try:
        yield
    except (RedisError, OSError) as error:
        raise explain(error, url) from error


def explain(error: RedisError | OSError, url: str) -> QueueUnavailableError:
    """Return an error that names the problem with Redis and the cure, in one line."""
    if problem := tls_problem(error, authority="?ssl_ca_certs=/path/ca.pem in REDIS_URL"):
        return QueueUnavailableError(f"TLS with Redis at {location(url)} fails: {problem}")
    if CLOSED in str(error):
        return QueueUnavailableError(f"{CLOSED} during the call: close it when its last call has ended")
    return QueueUnavailableError(f"Redis at {location(url)} {_explanation(error, url)}")


def _explanation(error: RedisError | OSError, url: str) -> str:
    if told := _state_problem(error):
        return told
    if (unfound := _cause(error, SentinelError, SentinelTimeoutError)) is not None:
        return f"cannot be found: {unfound}. Are the Sentinels running, is REDIS_URL right?"
    if turned_away := why_turned_away(error):
        return turned_away
    if reason := why_local(error) or _why_unresolved(error):
        return f"cannot be reached: {reason}"
    if isinstance(error, RedisConnectionError | RedisTimeoutError | OSError):
        question = "is REDIS_URL right?"
        # With TLS: a server without it is silent, and one that requires a client certificate may hang up.
        if url.lower().startswith(_TLS):
            question = "with TLS on this port, does it require a client certificate (ssl_certfile, ssl_keyfile)?"
        return f"cannot be reached ({why_unreachable(error)}): is it running, {question}"
    return f"refuses the command: {said(error)}"


def _why_unresolved(error: Exception) -> str | None:
    if (cause := _cause(error, gaierror)) is None:
        return None
    return f"the name of its host is not known ({cause.args[-1]}): is REDIS_URL right?"


def why_turned_away(error: Exception) -> str | None:
    """Return why Redis, which answers, lets nobody in, and the cure; ``None`` for other errors."""
    text = str(error)
    if isinstance(error, AuthenticationError | AuthorizationError) or "NOAUTH" in text:
        return _refusal(text)
    return "accepts no more connections: raise its maxclients" if "max number of clients" in text else None


def why_waiting(error: Exception) -> str:
    """Return briefly why Redis cannot be used, for the log of who waits for it."""
    if isinstance(error, OutOfMemoryError):
        return "it is full: raise its maxmemory"
    return why_turned_away(error) or why_local(error) or said(error) or why_unreachable(error)


def _refusal(error: str) -> str:
    if any(word in error for word in ("NOAUTH", "Authentication required", "already authenticated")):
        return "requires a password: set REDIS_PASSWORD, or write it into REDIS_URL"
    if "without any password configured" in error:
        return "has no password: remove it from REDIS_URL and REDIS_PASSWORD, or set one in the server"
    return "refuses the user or password: correct REDIS_URL"


_TLS = ("rediss:", "valkeys:", "rediss+", "valkeys+")

_CLUSTER_CURE = "is a Redis Cluster, which cannot hold a queue: use a server outside of cluster mode, with Sentinels"

_CLUSTER = ("MOVED", "ASK ", "CROSSSLOT", "CLUSTERDOWN")


def _state_problem(error: Exception) -> str | None:
    match error:
        case ClusterError():
            return _CLUSTER_CURE
        case ReplicaError():
            return f"cannot be used, {error}: point REDIS_URL at the primary, or at its Sentinels (redis+sentinel://)"
        case StaleConnectionError():
            return f"takes no writes: {error}"
        case OutOfMemoryError():
            return "is full: raise its maxmemory, for which the workers wait, too"
        case SentinelPortError():
            return f"is no Redis, {error}: write redis+sentinel://host:26379/mymaster/0"
    text = said(error)
    return _CLUSTER_CURE if text.startswith(_CLUSTER) or "cluster node" in text else None


def _cause(error: BaseException | None, *kinds: type[BaseException]) -> BaseException | None:
    """Return the first of the error, its causes and what they were raised beside that is of these kinds."""
    while error is not None and not isinstance(error, kinds):
        error = error.__cause__ or error.__context__
    return error
