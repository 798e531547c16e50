"""Logs one line per request: method, route, status and time. No address, path or query, which may be personal data."""

import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger

_log: structlog.stdlib.BoundLogger = structlog.get_logger("web.server")


class AccessLog(AbstractAccessLogger):
    """The log of requests, also of those that could not be read: their method is UNKNOWN."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log one request."""
        _log.info(
            "request",
            method=request.method,
            route=route_of(request),
            status=response.status,
            ms=round(time * 1000, 1),
        )


def route_of(request: web.BaseRequest) -> str | None:
    """Return the pattern of the path, which is one of a few; ``None`` if there is none for it."""
    # match_info itself fails for a request that no router has seen.
    match = request._match_info if isinstance(request, web.Request) else None  # noqa: SLF001
    resource = None if match is None else match.route.resource
    return None if resource is None else resource.canonical
