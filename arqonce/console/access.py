"""Who may do what: rights, the tokens that carry them, and proxies that name their user. Knows no HTTP."""

import hmac
import ipaddress
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict

from arqonce.environment import fitting

UNIX = "unix"
"""Stands for whoever may connect to the Unix socket, among the addresses of proxies."""

LONGEST_TOKEN = 200
"""Most characters of a token that are looked at."""

_TOKEN_BYTES = 32


class Role(StrEnum):
    """What a person may do. Each role includes those before it."""

    READER = "reader"
    """Look at everything but people's data."""

    OPERATOR = "operator"
    """And pause, resume, drain, retry, discard."""

    def includes(self, other: "Role") -> bool:
        """Return whether who has this role may do what the other may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


class Rights(BaseModel):
    """The rights of one person, as the settings have them."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    role: Role = Role.READER

    people: bool = False
    """Whether payloads, results and messages may be shown, which hold people's data."""


class TokenRights(Rights):
    """Rights of whoever has the token with this hash."""

    sha256: Annotated[str, AfterValidator(str.lower), fitting("[0-9a-f]{64}", "is not the SHA-256 of a token, in hex")]


class Person(NamedTuple):
    """Who is logged in. The author of all that this person does."""

    name: str
    rights: Rights

    def may(self, role: Role, *, people: bool = False) -> bool:
        """Return whether the rights suffice."""
        return self.rights.role.includes(role) and (self.rights.people or not people)


def require_name(name: str) -> str:
    """Return the name of a person, which stands in headers, in cookies and in the audit.

    Raises:
        ValueError: it is none; the text says what one is.
    """
    if not re.fullmatch(r"[\x21-\x7e]{1,100}", name):
        raise ValueError("is not a person's name of at most 100 ASCII characters without spaces")
    return name


PersonName = Annotated[str, AfterValidator(require_name)]


def new_token() -> str:
    """Return a token that cannot be guessed: 256 random bits."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def hash_of(token: str) -> str:
    """Return what the settings have in place of a token. Tokens are random: a slow hash would protect nothing more."""
    return sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True)
class Tokens:
    """The tokens that are known, by the name of the person."""

    known: Mapping[str, TokenRights]

    def person_with(self, token: str) -> Person | None:
        """Return whose token it is. Compares it with all of them, in a time that does not depend on it."""
        given, found = hash_of(token[:LONGEST_TOKEN]), None
        for name, rights in self.known.items():
            if hmac.compare_digest(given, rights.sha256):
                found = Person(name, rights)
        return found

    def person_named(self, name: str, mark: str) -> Person | None:
        """Return the person if the token is still the one of which ``mark`` is: else a cookie has outlived it."""
        rights = self.known.get(name)
        if rights is None or not hmac.compare_digest(mark.encode(), mark_of(rights).encode()):
            return None
        return Person(name, rights)


def mark_of(rights: TokenRights) -> str:
    """Return what a cookie keeps of the token: too little to find it, enough to see that it was replaced."""
    return sha256(f"mark:{rights.sha256}".encode()).hexdigest()[:16]


def read_peers(text: str) -> "Peers":
    """Parse addresses and networks, separated by commas.

    Raises:
        ValueError: one is neither; the text says which.
    """
    networks, unix = [], False
    for part in re.split(r"[\s,]+", text):
        if part.lower() == UNIX:
            unix = True
        elif part:
            try:
                networks.append(ipaddress.ip_network(part))
            except ValueError:
                if "/" in part and address_of(part.partition("/")[0]):
                    raise ValueError(f"{part[:100]!r} is no network: its address has bits behind the mask") from None
                message = f"{part[:100]!r} is neither an address, nor a network such as 10.1.0.0/16, nor {UNIX}"
                raise ValueError(message) from None
    return Peers(tuple(networks), unix)


@dataclass(frozen=True)
class Peers:
    """Addresses of those who are trusted."""

    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    unix: bool = False

    def has(self, peer: str) -> bool:
        """Return whether the address is one of them; ``UNIX`` is that of whoever connects to a Unix socket."""
        if peer == UNIX:
            return self.unix
        address = address_of(peer)
        return address is not None and any(ipaddress.ip_address(address) in network for network in self.networks)


def address_of(text: str) -> str | None:
    """Return the IP address in a text that may have a port and a zone; ``None`` if it has none."""
    text = text.strip().partition("%")[0]
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)
