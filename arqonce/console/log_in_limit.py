"""Limits how often log-ins may fail, from one address and from all. Knows no token."""

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import timedelta

from arqonce.console.access import address_of

_WITHIN = timedelta(minutes=1)

MOST_OF_ONE, MOST_OF_ALL = 5, 60
"""Failed log-ins in a minute; after that all are refused, until some are a minute old.

Whoever has many addresses can reach the second limit at any time. So it is none for an address from which somebody has
logged in: an operator gets in while others guess.
"""

_MOST_KNOWN = 100
"""Such addresses that are remembered, the latest: each may guess five times in a minute."""

_MOST_PEERS = 10_000
"""Addresses that are remembered. Whoever has more is stopped by the other limit."""


class LogInLimit:
    """Counts failures. Those who are logged in are not affected."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Begin without failures."""
        self._now = now
        self._all: deque[float] = deque(maxlen=MOST_OF_ALL)
        self._peers: OrderedDict[str, deque[float]] = OrderedDict()
        self._known: OrderedDict[str, None] = OrderedDict()

    def wait(self, peer: str) -> timedelta | None:
        """Return how long nobody may log in from there; ``None`` if somebody may."""
        network = _network(peer)
        counted = [self._peers.get(network), None if network in self._known else self._all]
        waits = [self._wait(failures) for failures in counted if failures is not None]
        return max((wait for wait in waits if wait is not None), default=None)

    def succeeded(self, peer: str) -> None:
        """Remember the address: somebody has logged in from there."""
        network = _network(peer)
        self._known[network] = None
        self._known.move_to_end(network)
        while len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)

    def failed(self, peer: str) -> None:
        """Count a failure."""
        now, network = self._now(), _network(peer)
        self._all.append(now)
        self._peers.setdefault(network, deque(maxlen=MOST_OF_ONE)).append(now)
        self._peers.move_to_end(network)
        while len(self._peers) > _MOST_PEERS:
            self._peers.popitem(last=False)

    def _wait(self, failures: deque[float]) -> timedelta | None:
        if len(failures) != failures.maxlen:
            return None
        left = failures[0] + _WITHIN.total_seconds() - self._now()
        return timedelta(seconds=left) if left > 0 else None


def _network(peer: str) -> str:
    """Return what one client has: an address, or with IPv6 a network of 64 bits."""
    known = address_of(peer)
    if known is None:
        return peer
    address = ipaddress.ip_address(known)
    return known if address.version == 4 else str(ipaddress.ip_network((int(address), 64), strict=False))  # noqa: PLR2004
