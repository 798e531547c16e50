"""Reads the servers from a PostgreSQL URL, in libpq's forms: several hosts, each with its port. Opens no connection."""

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote

from sqlalchemy import URL, make_url

from arqonce.addresses import require_host

DEFAULT_PORT = 5432

_LIST = re.compile(r"(?P<before>[\w+]+://(?:[^/?#]*@)?)(?P<hosts>[^/?#@]*,[^/?#@]*)(?P<after>[/?#].*)?", re.DOTALL)
"""A URL with commas between its hosts, which SQLAlchemy cannot parse."""

_PORTS = range(1, 65536)


class Host(NamedTuple):
    """One server: a name, an address, or the directory of a Unix socket."""

    name: str
    port: int

    def __str__(self) -> str:
        """Format it as in a URL."""
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


def read_url(text: str) -> URL:
    """Parse a URL and move a list of hosts into its query, as ``host=a,b`` and ``port=1,2``.

    Raises:
        ArgumentError: the text is not a URL.
        ValueError: likewise, or the list of hosts is invalid; then it is a ``WrongHostsError``, which says why.
    """
    scheme, separator, rest = text.partition("://")
    text = f"{scheme.lower()}{separator}{rest}"
    found = _LIST.fullmatch(text)
    if found is None:
        url = make_url(text)
        return url.set(host=unquote(url.host)) if url.host else url
    url = make_url(f"{found['before']}{found['after'] or ''}")
    if "host" in url.query:
        raise WrongHostsError("names hosts twice: before the database and as ?host=. Remove one of them")
    ports = _query_list(url, "port")
    return with_hosts(url, _read_hosts([unquote(host) for host in found["hosts"].split(",")], ports))


def hosts_of(url: URL) -> tuple[Host, ...]:
    """Return the servers that the URL names, in its order; none if it leaves them to the driver.

    Raises:
        WrongHostsError: the list is invalid; the text says why.
    """
    names, ports = _query_list(url, "host"), _query_list(url, "port")
    if not names and url.host:
        names = url.host.split(",")
        ports = ports or ([] if url.port is None else [str(url.port)])
    if not names:
        return ()
    return _read_hosts(names, ports)


def with_hosts(url: URL, hosts: Sequence[Host]) -> URL:
    """Return the URL with these hosts, in a form that both SQLAlchemy and asyncpg understand."""
    # Not ``set``, which ignores None.
    url = URL.create(url.drivername, url.username, url.password, database=url.database, query=url.query)
    url = url.difference_update_query(["host", "port"])
    if not hosts:
        return url
    if len(hosts) == 1 and not hosts[0].name.startswith("/"):
        return url.set(host=hosts[0].name, port=hosts[0].port)
    names, ports = ",".join(host.name for host in hosts), ",".join(str(host.port) for host in hosts)
    return url.update_query_dict({"host": names, "port": ports})


class WrongHostsError(ValueError):
    """The list of hosts is invalid; the text says why."""


def _query_list(url: URL, name: str) -> list[str]:
    value = url.query.get(name, ())
    values = [value] if isinstance(value, str) else value
    return [part for text in values for part in text.split(",")]


def _read_hosts(names: Sequence[str], ports: Sequence[str]) -> tuple[Host, ...]:
    if len(ports) > 1 and len(ports) != len(names):
        raise WrongHostsError(f"names {len(names)} hosts and {len(ports)} ports: name one port, or one for each host")
    common = list(ports) * len(names) if len(ports) == 1 else list(ports) or [""] * len(names)
    return tuple(_read_host(name, port) for name, port in zip(names, common, strict=True))


def _read_host(text: str, port: str) -> Host:
    """Parse one host. A port that is part of ``text`` overrides ``port``, that of the query."""
    if bracketed := re.fullmatch(r"\[([^\]]+)\](?::(\d*))?", text):
        name, own = bracketed[1], bracketed[2]
    elif text.startswith("/") or text.count(":") > 1:  # a socket's directory, or an IPv6 address without a port
        name, own = text, None
    else:
        name, _, own = text.partition(":")
    if not name or re.search(r"[\s\[\]]", name):
        raise WrongHostsError("has an empty or invalid name in its list of hosts: write host:port,host:port")
    try:
        require_host(name)
    except ValueError as error:
        raise WrongHostsError(str(error)) from None
    number = own or port or str(DEFAULT_PORT)
    if not number.isascii() or not number.isdigit() or int(number) not in _PORTS:
        raise WrongHostsError("has a port that is not a number from 1 to 65535")
    return Host(name, int(number))
