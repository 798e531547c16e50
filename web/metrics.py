"""What the HTTP service shows on the port of operations: its requests, connections, and pool."""

from aiohttp import web

from arqonce.metrics import families
from arqonce.metrics.store import Store
from arqonce.operations.process import Operations
from arqonce.process.shown import show_pool
from web.access_log import AccessLog, route_of
from web.connection_limit import ConnectionLimit
from web.resources import RESOURCES

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_OTHER = "_OTHER"
"""OpenTelemetry's label for methods that are not known: clients may send any word."""


def counting(store: Store) -> type[AccessLog]:
    """Return a log of requests that counts them, too: it sees each one, also those that no route has seen."""

    class CountingLog(AccessLog):
        def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
            super().log(request, response, time)
            method = request.method if request.method in _METHODS else _OTHER
            place = store.place(families.REQUESTS, method, route_of(request) or "", str(response.status))
            store.observe(place, families.REQUESTS, time)

    return CountingLog


def show_service(operations: Operations, app: web.Application, limit: ConnectionLimit) -> None:
    """Show a service that has started to listen."""

    def write(store: Store) -> None:
        store.set(families.OPEN_CONNECTIONS, limit.open)
        store.set(families.REFUSED_CONNECTIONS, limit.refusals.number)

    operations.add(write)
    operations.checks["connections"] = lambda: not limit.is_reached
    show_pool(operations, app[RESOURCES].sessions)
    operations.started()
