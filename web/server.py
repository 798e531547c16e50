"""Runs one process of the service. Owns the responses that aiohttp sends before it calls a route."""

import asyncio
import signal

import structlog
from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.web_protocol import RequestHandler

from arqonce.process.ending import MARGIN, Ending, leave
from arqonce.process.event_loop import fastest_loop, run_to_the_end
from arqonce.process.logs import log_to_stderr
from web.application import build_app
from web.problems import PROBLEM_JSON, ProblemError, problem_of_aiohttp
from web.settings import Settings

_log: structlog.stdlib.BoundLogger = structlog.get_logger("web.server")


class ListenError(OSError):
    """The service cannot listen on the address. The text names the cure."""


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
    runner = _Runner(
        build_app(settings),
        access_log_class=AccessLog,
        shutdown_timeout=settings.web.shutdown_grace.total_seconds(),
    )
    told = _told_to_stop(ending)
    try:
        await runner.setup()
        await _listen(runner, settings)
        host, port = runner.addresses[0][:2]
        _log.info("serving", host=host, port=port)
        await told.wait()
        _log.info("told to stop")
    finally:
        ending.limit(settings.web.shutdown_grace + MARGIN)
        await runner.cleanup()


async def _listen(runner: web.AppRunner, settings: Settings) -> None:
    host, port = settings.web.host, settings.web.port
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        text = f"cannot listen on {host}:{port} ({error.strerror or error}): correct WEB_HOST and WEB_PORT"
        raise ListenError(text) from error


def _told_to_stop(ending: Ending) -> asyncio.Event:
    """Return the event that the first signal sets. The second signal ends the process at once."""
    told = asyncio.Event()

    def stop(number: signal.Signals) -> None:
        if told.is_set():
            _log.info("told to stop at once", signal=number.name)
            leave(0)
        told.set()

    ending.begin()
    ending.obey(stop)
    return told


class AccessLog(AbstractAccessLogger):
    """One line per request: method, route, status and time. No address, path or query, which may be personal data."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log one request."""
        resource = request.match_info.route.resource if isinstance(request, web.Request) else None
        _log.info(
            "request",
            method=request.method,
            route=None if resource is None else resource.canonical,
            status=response.status,
            ms=round(time * 1000, 1),
        )


class _Handler(RequestHandler):
    """Responds with problems where no middleware runs: to invalid HTTP, and to unsupported expectations."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it repeats the request
    ) -> web.StreamResponse:
        """Respond with a problem, and close the connection."""
        if status == 500:  # noqa: PLR2004 - an error of the service
            _log.error("request failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("part of another response was already sent")
        response = ProblemError(status).response()
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the response; convert aiohttp's own errors to problems."""
        if isinstance(resp, web.HTTPException) and resp.content_type != PROBLEM_JSON:
            resp = problem_of_aiohttp(resp).response()
        return await super().finish_response(request, resp, start_time)


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Handler(self, loop=self._loop, **self._kwargs)


class _Runner(web.AppRunner):
    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return _Server(
            server.request_handler,
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
            **server._kwargs,  # noqa: SLF001 - aiohttp has no option for the handler class
        )
