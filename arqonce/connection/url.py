"""Parses REDIS_URL: redis-py's URLs, the same with Valkey's schemes, and URLs of Sentinels. Opens nothing."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from arqonce.addresses import PERCENT_ENCODE, require_host, require_tls_files
from arqonce.misspelt import meant_among

_SENTINEL_PORT = 26379
LAST_PORT = 65535
"""The highest TCP port."""

_SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "valkey": "redis",
    "valkeys": "rediss",
}
"""redis-py's scheme for each scheme that REDIS_URL may have."""

_BY_SENTINELS = {f"{scheme}+sentinel": plain for scheme, plain in _SCHEMES.items() if scheme != "unix"}

CERT_REQUIREMENTS = ("required", "optional", "none")
"""What ``ssl_cert_reqs`` may be. With ``none`` the server is not verified, as some hosts of Redis demand."""

_EXAMPLE = "redis+sentinel://host1:26379,host2:26379/mymaster/0"


class RedisURLError(ValueError):
    """The URL is not valid. The text completes "REDIS_URL ..." and repeats nothing of the URL."""


@dataclass(frozen=True)
class RedisURL:
    """A parsed URL."""

    plain: str = field(repr=False)
    """The URL for redis-py. With Sentinels its host is not used: they are asked at each connect."""

    location: str
    """The address without user and password, for logs and errors."""

    primary: str | None = None
    """The primary's name in the Sentinels' configuration."""

    sentinels: tuple[tuple[str, int], ...] = ()
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    @property
    def is_tls(self) -> bool:
        """Whether connections to the server and to Sentinels use TLS."""
        return self.plain.startswith("rediss:")

    @property
    def is_verified(self) -> bool:
        """Whether the server's certificate is verified."""
        return _options(urlsplit(self.plain).query).get("ssl_cert_reqs") != "none"


def read_redis_url(url: str) -> RedisURL:
    """Parse a URL.

    Raises:
        RedisURLError: it is not valid. The text names the cure and repeats neither user nor password.
    """
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _SCHEMES | _BY_SENTINELS:
        raise RedisURLError("is not a URL of Redis")
    if "#" in rest:
        raise RedisURLError("has a #: write it as %23 in user or password")
    return _read_sentinels(_BY_SENTINELS[scheme], rest) if scheme in _BY_SENTINELS else _read(_SCHEMES[scheme], rest)


def require_files(address: RedisURL) -> None:
    """Load the TLS files that the URL names.

    Raises:
        RedisURLError: one of them cannot be used.
    """
    options = _options(urlsplit(address.plain).query) if address.is_tls else {}
    try:
        require_tls_files(
            options, trusted=("ssl_ca_certs",), certificate="ssl_certfile", key="ssl_keyfile",
            password=options.get("ssl_password"),
        )  # fmt: skip
    except ValueError as error:
        raise RedisURLError(str(error)) from None


def with_sentinel_password(url: str, password: str | None) -> str:
    """Add the Sentinels' password to the URL, unless it has one or names no Sentinels."""
    if password is None or "+sentinel://" not in url.lower() or "sentinel_password=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}sentinel_password={quote(password, safe='')}"


def _read(scheme: str, rest: str) -> RedisURL:
    plain = f"{scheme}://{rest}"
    if scheme == "unix":
        parts = urlsplit(plain)
        options = _options(parts.query)
        _require_tls(scheme, options)
        _database("", options.get("db"))
        if not parts.path:
            raise RedisURLError("names no socket: write unix:///path/of/the/socket")
        return RedisURL(plain, parts.path)
    authority = rest.partition("?")[0].partition("/")[0]
    if "," in authority.rpartition("@")[2]:
        raise RedisURLError(f"names several hosts: for Sentinels write {_EXAMPLE}")
    try:
        parts = urlsplit(plain)
        host, port = _read_host(parts.hostname or "localhost"), 6379 if parts.port is None else parts.port
    except RedisURLError:
        raise
    except ValueError:  # it repeats the URL
        raise RedisURLError(
            PERCENT_ENCODE if "@" in rest else "is not a URL: check its host, brackets and port"
        ) from None
    if not port:
        raise RedisURLError("has the port 0, on which no server listens")
    options = _options(parts.query)
    _require_tls(scheme, options)
    if "@" in parts.path:
        raise RedisURLError(PERCENT_ENCODE)
    database = _database(parts.path.strip("/"), options.get("db"))
    return RedisURL(plain, f"{_bracketed(host)}:{port}/{database}")


def _read_sentinels(scheme: str, rest: str) -> RedisURL:
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    sentinels = tuple(_host_and_port(host) for host in hosts.split(","))
    primary, _, database = path.rstrip("/").partition("/")
    if not primary or primary.isdigit():
        raise RedisURLError(f"does not name the primary that the Sentinels watch: write {_EXAMPLE}")
    options = _options(query)
    _require_tls(scheme, options)
    number = _database(database, options.get("db"))
    own = {name: value for name, value in options.items() if name.startswith("sentinel_")}
    if unknown := own.keys() - {"sentinel_username", "sentinel_password"}:
        raise RedisURLError(f"has an option {min(unknown)}: there are sentinel_username and sentinel_password")
    others = "&".join(part for part in query.split("&") if not part.startswith(("sentinel_", "db=")))
    name = unquote(primary)
    places = ", ".join(f"{_bracketed(host)}:{port}" for host, port in sentinels)
    return RedisURL(
        f"{scheme}://{user}{at}primary/{number}{'?' if others else ''}{others}",
        f"{name}{f'/{number}' if number else ''} by sentinels {places}",
        primary=name,
        sentinels=sentinels,
        sentinel_username=own.get("sentinel_username"),
        sentinel_password=own.get("sentinel_password"),
    )


def _require_tls(scheme: str, options: Mapping[str, str]) -> None:
    if scheme != "rediss" and (found := next((name for name in options if name.startswith("ssl_")), None)):
        raise RedisURLError(f"has the option {found}, which only rediss:// has: write rediss, or leave it out")


def _options(query: str) -> dict[str, str]:
    """Return the options, each of which is known: taken as redis-py takes it, or refused with the cure."""
    # A + is kept as it is, as in user and password.
    pairs = [part.partition("=") for part in query.split("&") if part]
    options = {name: unquote(value) for name, _, value in pairs}
    if len(options) < len(pairs):
        raise RedisURLError("has an option twice: leave one of them out")
    for name, value in options.items():
        if name.startswith("sentinel_") or name == "db":
            continue
        if cure := _REFUSED.get(name):
            raise RedisURLError(f"has the option {name}: leave it out, {cure}")
        if name not in _TAKEN:
            if "@" in name:
                raise RedisURLError(PERCENT_ENCODE)
            raise RedisURLError(f"has an option that there is not: {meant_among(_TAKEN, name)}")
        fits, expected = _TAKEN[name]
        if not fits(value):
            raise RedisURLError(f"has a wrong value for {name}: it is {expected}")
    return options


def _is_number(value: str) -> bool:
    try:
        return 0 < float(value) < math.inf
    except ValueError:
        return False


_Values = tuple[Callable[[str], object], str]

_ANY: _Values = (bool, "some text")
_SECONDS: _Values = (_is_number, "a number of seconds above 0")
_BOOLEAN: _Values = (lambda value: value.lower() in {"true", "false", "1", "0", "yes", "no"}, "true or false")

_TAKEN: dict[str, _Values] = {
    "username": _ANY,
    "password": _ANY,
    "client_name": (lambda value: re.fullmatch("[!-~]+", value), "printable ASCII without spaces"),
    "protocol": (lambda value: value in {"2", "3"}, "2 or 3"),
    "ssl_ca_certs": _ANY,
    "ssl_certfile": _ANY,
    "ssl_keyfile": _ANY,
    "ssl_password": _ANY,
    "ssl_cert_reqs": (lambda value: value in CERT_REQUIREMENTS, f"one of {', '.join(CERT_REQUIREMENTS)}"),
    "ssl_check_hostname": _BOOLEAN,
    "socket_timeout": _SECONDS,
    "socket_connect_timeout": _SECONDS,
    "socket_keepalive": _BOOLEAN,
    "health_check_interval": _SECONDS,
}
"""redis-py's options that may stand in the URL, with what they may be."""

_BYTES = "messages are read as bytes"
_RETRIES = "what is retried, and how often, is decided here"

_REFUSED = {
    "decode_responses": _BYTES,
    "encoding": _BYTES,
    "encoding_errors": _BYTES,
    "max_connections": "there are as many connections as jobs and callers need",
    "retry_on_timeout": _RETRIES,
    "retry_on_error": _RETRIES,
    "retry": _RETRIES,
    "timeout": "socket_timeout limits the wait for an answer",
}
"""redis-py's options that would break something."""


def _database(path: str, option: str | None) -> int:
    number = path if option is None else option
    if number and not (number.isascii() and number.isdigit()):
        raise RedisURLError("names a database that is not a number")
    return int(number or 0)


def _host_and_port(text: str) -> tuple[str, int]:
    """Parse ``host``, ``host:port``, ``[address]`` or ``[address]:port``."""
    if text.startswith("["):
        host, closed, port = text[1:].partition("]")
        port = port.removeprefix(":") if closed and (not port or port.startswith(":")) else "?"
    else:
        host, _, port = text.partition(":")
    number = int(port) if port.isascii() and port.isdigit() else 0 if port else _SENTINEL_PORT
    if not host or not 0 < number <= LAST_PORT:
        raise RedisURLError(f"has a Sentinel that is not host:port: write {_EXAMPLE}")
    return _read_host(unquote(host)), number


def _read_host(name: str) -> str:
    try:
        return require_host(name)
    except ValueError as error:
        raise RedisURLError(str(error)) from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
