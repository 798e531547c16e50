"""Limits how often log-ins may fail, from one address and from all. Knows no token."""

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import timedelta

from arqonce.console.access import address_of

_WITHIN = timedelta(minutes=1)

MOST_OF_ONE, MOST_OF_ALL = 5, 60
"""Failed log-ins in a minute; after that all are refused, until some are a minute old."""

_MOST_PEERS = 10_000
"""Addresses that are remembered. Whoever has more is stopped by the other limit."""


class LogInLimit:
    """Counts failures. Those who are logged in are not affected."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Begin without failures."""
        self._now = now
        self._all: deque[float] = deque(maxlen=MOST_OF_ALL)
        self._peers: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, peer: str) -> timedelta | None:
        """Return how long nobody may log in from there; ``None`` if somebody may."""
        waits = [self._wait(self._all), self._wait(self._peers.get(_network(peer), deque(maxlen=MOST_OF_ONE)))]
        return max((wait for wait in waits if wait is not None), default=None)

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
