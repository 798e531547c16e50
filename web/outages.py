"""Logs what keeps the service from using a server: at once, then once a minute, and when it is over."""

import time
from datetime import timedelta

import structlog
from aiohttp import web

from arqonce.flood import Flood

REDIS = "Redis"
POSTGRESQL = "PostgreSQL"

_QUIET = timedelta(seconds=5)
"""For how long no request has failed when an outage counts as over: a server that is too busy fails some of many."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("web.outages")


class Outages:
    """The present outages, as requests have met them."""

    def __init__(self) -> None:
        """Begin without one."""
        self._floods: dict[str, dict[tuple[str, str], Flood]] = {}
        self._failed_at: dict[str, float] = {}

    def note(self, server: str, event: str, reason: str) -> None:
        """Note that a request could not use the server; log each event and reason once a minute."""
        floods = self._floods.setdefault(server, {})
        flood = floods.setdefault((event, reason), Flood(_log, f"{server} {event}", counted="requests"))
        self._failed_at[server] = time.monotonic()
        flood.note(reason=reason)

    def used(self, server: str) -> None:
        """Note that a request has used the server; if it could not be used before, log that it is back."""
        if server in self._floods and time.monotonic() - self._failed_at[server] > _QUIET.total_seconds():
            requests = sum(flood.number for flood in self._floods.pop(server).values())
            _log.info(f"{server} is back", failed_requests=requests)


OUTAGES = web.AppKey("outages", Outages)
