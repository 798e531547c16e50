"""One connection, as aiohttp serves it: what is sent where no route was found, and how many there may be."""

import asyncio
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from arqonce.flood import Refusals

MOST = 500
"""Open connections; a further one is closed unheard, and logged. A process usually may have 1,024 descriptors."""

_HEADERS = {"Server": "console", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""Nothing about versions."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.console")


class Connection(RequestHandler):
    """Serves one connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve it, or close it if there are too many."""
        manager = self._manager
        if isinstance(manager, _Server) and len(manager.connections) >= MOST:
            manager.refusals.note(limit=MOST)
            cast("asyncio.Transport", transport).abort()
            self._force_close = True
            return
        super().connection_made(transport)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no request, without a line in the log: anybody may send it, any number of times."""
        if status >= 500:  # noqa: PLR2004 - an error of ours
            _log.error("a request failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("part of another response was already sent")
        text = "This request cannot be read.\n"
        if isinstance(exc, LineTooLong) or message == "Too many headers received":
            status, text = 431, "The header is too large: it may have cookies of other pages of this host.\n"
        response = web.Response(status=status, text=text, headers=_HEADERS)
        response.force_close()
        return response


class Runner(web.AppRunner):
    """Serves an application with these connections."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        return _Server(
            server.request_handler,
            request_factory=server.request_factory,
            handler_cancellation=server.handler_cancellation,
            **server._kwargs,  # noqa: SLF001 - aiohttp has no option for the class of connections
        )


class _Server(web.Server):
    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        super().__init__(*arguments, **options)
        self.refusals = Refusals(_log)

    def __call__(self) -> Connection:
        return Connection(self, loop=self._loop, **self._kwargs)
