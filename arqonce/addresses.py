"""Checks what a connection needs of this machine, before one is opened: a host's name that can be asked for, TLS files.

Says, too, how the addresses of one host are tried.

Otherwise a fault of ours would look like one of the server. The texts complete the name of a setting.
"""

import asyncio
import os
import re
import ssl
from collections.abc import Collection, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

PERCENT_ENCODE = "has a character in user or password that must be percent-encoded: / is %2F, ? is %3F, @ is %40"
"""What is said of a URL that a password has cut at the wrong place."""


_STAGGER_SECONDS = 0.25
"""After how long the next address of a host is tried, too (RFC 8305, section 5)."""


def staggered(host: str) -> dict[str, Any]:
    """Return options of asyncio's ``create_connection`` by which an address that is silent does not hide the others.

    Without them each has to fail first, which takes longer than a connection may. uvloop knows no such option. Not for
    a ``host`` that is an address: asyncio then leaves a socket to the garbage collector if connecting is cancelled.
    """
    if is_address(host) or not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
        return {}
    return {"happy_eyeballs_delay": _STAGGER_SECONDS}


def require_host(name: str) -> str:
    """Return a host's name, an address, or the path of a socket.

    Raises:
        ValueError: no name server can be asked for such a name.
    """
    try:
        if not name.startswith("/"):
            name.encode("idna")  # as every look-up does
    except UnicodeError:
        raise ValueError("has a host's name with a part that is empty or longer than 63 characters") from None
    return name


def require_listening(name: str) -> str:
    """Return an address to listen on, or a host's name, without the brackets that an IPv6 address has in a URL.

    Raises:
        ValueError: it is neither.
    """
    name = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    if re.search(r"[\s/@]", name) or (":" in name and not is_address(name)):
        raise ValueError("must be an address or a host's name alone, without a scheme and a port")
    return require_host(name)


def is_address(text: str) -> bool:
    """Return whether the text is an IP address."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def require_tls_files(
    files: Mapping[str, str], *, trusted: Collection[str], certificate: str, key: str, password: str | None = None
) -> None:
    """Load TLS files as a connection will; ``trusted``, ``certificate`` and ``key`` are the options that name them.

    Raises:
        ValueError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for option in sorted(files.keys() & {*trusted, certificate, key}):
        if not (Path(files[option]).is_file() and os.access(files[option], os.R_OK)):
            raise ValueError(f"names a file with {option} that does not exist or cannot be read")
        try:
            if option in trusted:
                context.load_verify_locations(files[option])
        except ssl.SSLError:
            raise ValueError(f"names a file with {option} that holds nothing in PEM, the text form") from None
    try:
        if certificate in files:
            context.load_cert_chain(files[certificate], files.get(key), password=lambda: password or "")
    except ssl.SSLError:
        cure = "both must be in PEM, belong together, and the key's password must be right, if it has one"
        raise ValueError(f"names files with {certificate} and {key} that cannot be used: {cure}") from None
