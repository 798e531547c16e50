"""Runs one process of the service: listens, and ends in order."""

import asyncio

import structlog
from aiohttp import web

from arqonce.operations.endpoint import ListenError
from arqonce.operations.process import Operations, open_operations
from arqonce.process.ending import MARGIN, Ending
from arqonce.process.event_loop import fastest_loop, run_to_the_end
from arqonce.process.logs import log_to_stderr
from web.access_log import AccessLog
from web.admission import checked_requests, refusing
from web.application import build_app
from web.connection import LINGERING, Connection, Limits
from web.connection_limit import ConnectionLimit, connections_that_fit
from web.draining import drain
from web.metrics import counting, show_service
from web.settings import Settings, WebSettings

_log: structlog.stdlib.BoundLogger = structlog.get_logger("web.server")


def run_service(settings: Settings) -> None:
    """Serve until a signal, then end within the grace period; a second signal ends it at once. Owns the event loop.

    Raises:
        ListenError: the address is in use, or does not belong to this host.
    """
    log_to_stderr(settings.web.log_format, settings.web.log_level)
    ending = Ending(settings.web.shutdown_grace)
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        run_to_the_end(runner, _serve(settings, ending), ending)


async def _serve(settings: Settings, ending: Ending) -> None:
    ending.begin()
    told = ending.told_to_stop()
    async with open_operations(settings.operations, "web", has_queues=False) as operations:
        await _serve_until(told, settings, ending, operations)


async def _serve_until(told: asyncio.Event, settings: Settings, ending: Ending, operations: Operations | None) -> None:
    app = build_app(settings)
    limit = ConnectionLimit(connections_that_fit(settings.web.max_connections, pool_size=settings.web.pool_size))
    log = AccessLog if operations is None else counting(operations.store)
    runner = _build_runner(app, settings.web, limit, log)
    try:
        await runner.setup()
        await _listen(runner, settings)
        host, port = runner.addresses[0][:2]
        _log.info("serving", host=host, port=port)
        ending.ready(lambda: f"serving on {host}:{port}")
        if operations is not None:
            show_service(operations, app, limit)
        await told.wait()
        _log.info("told to stop")
        if operations is not None:
            operations.stopping()
        await drain(runner, limit)
    finally:
        ending.limit(settings.web.shutdown_grace + MARGIN)
        await runner.cleanup()


def _build_runner(
    app: web.Application, settings: WebSettings, limit: ConnectionLimit, log: type[AccessLog]
) -> web.AppRunner:
    return _Runner(
        app,
        access_log_class=log,
        auto_decompress=False,  # web.body does it, once the token was checked
        keepalive_timeout=settings.idle_timeout.total_seconds(),
        lingering_time=LINGERING.total_seconds(),
        limit=limit,
        limits=Limits(settings.header_timeout, settings.send_timeout, settings.max_header),
        shutdown_timeout=settings.shutdown_grace.total_seconds(),
    )


async def _listen(runner: web.AppRunner, settings: Settings) -> None:
    host, port = settings.web.host, settings.web.port
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        text = f"cannot listen on {host}:{port} ({error.strerror or error}): correct WEB_HOST and WEB_PORT"
        raise ListenError(text) from error


class _Server(web.Server):
    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)


class _Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        options = server._kwargs  # noqa: SLF001 - aiohttp has no option for the handler class
        return _Server(
            refusing(server.request_handler),
            request_factory=checked_requests(server.request_factory, max_header=options["limits"].header_size),
            handler_cancellation=server.handler_cancellation,
            **options,
        )
