"""Reads the servers from a PostgreSQL URL, in libpq's forms: several hosts, each with its port. Opens no connection."""

import re
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import unquote

from sqlalchemy import URL, make_url

DEFAULT_PORT = 5432

_LIST = re.compile(r"(?P<before>[\w+]+://(?:[^/?#]*@)?)(?P<hosts>[^/?#@]*,[^/?#@]*)(?P<after>[/?#].*)?", re.DOTALL)
"""A URL with a comma between its hosts, which SQLAlchemy does not read."""

_PORTS = range(1, 65536)


class Host(NamedTuple):
    """One server: a name, an address, or the directory of a Unix socket."""

    name: str
    port: int

    def __str__(self) -> str:
        """Write it as in a URL."""
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


def read_url(text: str) -> URL:
    """Read a URL; a list of hosts goes into its query, as ``host=a,b`` and ``port=1,2``.

    Raises:
        ArgumentError: it is no URL.
        ValueError: it is none, or its list of hosts is wrong; in that case the text says how.
    """
    found = _LIST.fullmatch(text)
    if found is None:
        url = make_url(text)
        return url.set(host=unquote(url.host)) if url.host else url
    url = make_url(f"{found['before']}{found['after'] or ''}")
    if "host" in url.query:
        raise WrongHostsError("names hosts twice: before the database and as ?host=. Leave one out")
    ports = _query_list(url, "port")
    return with_hosts(url, _read_hosts([unquote(host) for host in found["hosts"].split(",")], ports))


def hosts_of(url: URL) -> tuple[Host, ...]:
    """Return the servers that the URL names, in its order; none if it leaves that to the driver.

    Raises:
        WrongHostsError: the list is wrong; the text says how.
    """
    names, ports = _query_list(url, "host"), _query_list(url, "port")
    if not names and url.host:
        names = url.host.split(",")
        ports = ports or ([str(url.port)] if url.port else [])
    if not names:
        return ()
    return _read_hosts(names, ports)


def with_hosts(url: URL, hosts: Sequence[Host]) -> URL:
    """Return the URL in the form that SQLAlchemy and asyncpg read alike, for one host and for several."""
    # Not by ``set``, which passes over None.
    url = URL.create(url.drivername, url.username, url.password, database=url.database, query=url.query)
    url = url.difference_update_query(["host", "port"])
    if not hosts:
        return url
    if len(hosts) == 1 and not hosts[0].name.startswith("/"):
        return url.set(host=hosts[0].name, port=hosts[0].port)
    names, ports = ",".join(host.name for host in hosts), ",".join(str(host.port) for host in hosts)
    return url.update_query_dict({"host": names, "port": ports})


class WrongHostsError(ValueError):
    """The list of hosts cannot be used; the text says why."""


def _query_list(url: URL, name: str) -> list[str]:
    value = url.query.get(name, ())
    values = [value] if isinstance(value, str) else value
    return [part for text in values for part in text.split(",")]


def _read_hosts(names: Sequence[str], ports: Sequence[str]) -> tuple[Host, ...]:
    if len(ports) > 1 and len(ports) != len(names):
        raise WrongHostsError(f"names {len(names)} hosts and {len(ports)} ports: give one port, or one for each")
    common = list(ports) * len(names) if len(ports) == 1 else list(ports) or [""] * len(names)
    return tuple(_read_host(name, port) for name, port in zip(names, common, strict=True))


def _read_host(text: str, port: str) -> Host:
    """Read one host; a port that stands with it wins over that of the query."""
    if bracketed := re.fullmatch(r"\[([^\]]+)\](?::(\d*))?", text):
        name, own = bracketed[1], bracketed[2]
    elif text.startswith("/") or text.count(":") > 1:  # a socket's directory, or an IPv6 address by itself
        name, own = text, None
    else:
        name, _, own = text.partition(":")
    if not name or re.search(r"[\s\[\]]", name):
        raise WrongHostsError("has an empty or broken name in its list of hosts: write host:port,host:port")
    number = own or port or str(DEFAULT_PORT)
    if not number.isascii() or not number.isdigit() or int(number) not in _PORTS:
        raise WrongHostsError("has a port that is no number from 1 to 65535")
    return Host(name, int(number))
