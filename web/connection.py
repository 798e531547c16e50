"""One connection, as aiohttp serves it, with limits for how long a client may take. Owns what is sent before a route.

aiohttp itself limits only how long an idle connection is kept. Here a client also has limited time to send a header and
to take a response; that of a body is in ``web.body``. Every response gets its common headers here, because not all
responses come from routes.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import structlog
from aiohttp import web
from aiohttp.helpers import set_exception
from aiohttp.http_exceptions import BadStatusLine, InvalidURLError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from web.connection_limit import ConnectionLimit
from web.problems import PROBLEM_JSON, RETRY_AFTER, ProblemError, problem_of_aiohttp, unavailable

LINGERING = timedelta(seconds=5)
"""How long the rest of a body that nobody wants is read, so that the client sees its response, not a reset."""

_HEADERS = {
    "Server": "users-web",  # without versions
    "Cache-Control": "no-store",  # responses may be personal data
    "X-Content-Type-Options": "nosniff",
}

_log: structlog.stdlib.BoundLogger = structlog.get_logger("web.server")


@dataclass(frozen=True)
class Limits:
    """What one connection may take."""

    header_time: timedelta
    """Longest time for the header of a request to arrive; for the first byte of a new connection too."""

    send_time: timedelta
    """Longest time for the client to take what was sent."""

    header_size: int
    """Most bytes of a header."""


class Connection(RequestHandler):
    """Serves one connection. Responds with problems, also where no middleware runs."""

    def __init__(self, manager: web.Server, *, limits: Limits, limit: ConnectionLimit, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        # A request line may have half of the size: so the parser's error says which of both limits was exceeded.
        super().__init__(manager, max_line_size=limits.header_size // 2, max_field_size=limits.header_size, **options)
        self._limits, self._limit = limits, limit
        self._is_counted = False
        self._is_over = False
        self._header_size = 0
        self._body: StreamReader = EMPTY_PAYLOAD
        self._header_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._abort: Callable[[], None] = _nothing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve the connection, or refuse it if there are too many."""
        wire = cast("asyncio.Transport", transport)
        self._abort = wire.abort
        if not self._limit.enter():
            self._force_close = True
            wire.write(_TOO_MANY)
            wire.close()
            return
        self._is_counted = True
        super().connection_made(transport)
        wire.set_write_buffer_limits(high=0)  # whatever the client does not take starts the timer, and is waited for
        self._start_header_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Release what belongs to the connection."""
        if self._is_counted:
            self._is_counted = False
            self._limit.leave()
        self._stop_header_timer()
        self._stop_send_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read more of a header or a body."""
        if self._is_over:
            return
        seen, body, is_header = self._request_count, self._body, self._body.is_eof()
        super().data_received(data)
        if self._request_count > seen:
            self._note_request(body)
        elif data and is_header:
            self._header_size += len(data)
            if self._header_size > self._limits.header_size:
                self._refuse(431)
            elif self._header_timer is None:
                self._start_header_timer()

    def _note_request(self, body_before: StreamReader) -> None:
        self._stop_header_timer()
        self._header_size = 0
        message, self._body = self._messages[-1]
        if not isinstance(message, _ErrInfo):
            return
        self._is_over = True
        if not body_before.is_eof():  # what cannot be read is a body, not another request
            self._messages.pop()
            set_exception(body_before, web.RequestPayloadError("the body is malformed"))
            body_before.feed_eof()

    def _refuse(self, status: int) -> None:
        """Respond, after the requests before, to a request that is not complete."""
        self._is_over = True
        self._stop_header_timer()
        self._request_count += 1
        self._messages.append((_ErrInfo(status=status, exc=TimeoutError(), message=""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _start_header_timer(self) -> None:
        seconds = self._limits.header_time.total_seconds()
        self._header_timer = self._loop.call_later(seconds, self._end_header_time)

    def _process_keepalive(self) -> None:
        """Close an idle connection; one on which a header has begun has the time of headers."""
        if self._header_timer is None:
            super()._process_keepalive()
        else:
            self._keepalive_handle = None  # the response sets it again

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _end_header_time(self) -> None:
        self._header_timer = None
        if self._header_size:
            self._refuse(408)
        else:
            self.force_close()  # nothing was asked

    def pause_writing(self) -> None:
        """Limit how long the client may take nothing."""
        super().pause_writing()
        self._send_timer = self._loop.call_later(self._limits.send_time.total_seconds(), self._abort)

    def resume_writing(self) -> None:
        """Note that the client has taken everything."""
        self._stop_send_timer()
        super().resume_writing()

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Respond with a problem, and close the connection."""
        if status == 500:  # noqa: PLR2004 - an error of the service
            _log.error("request failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("part of another response was already sent")
        if isinstance(exc, LineTooLong):
            status = 414 if exc.args[1] == self.max_line_size else 431
        elif message == "Too many headers received":
            status = 431
        response = ProblemError(status, _NOT_ENCODED if _has_wrong_url(exc) else _DETAILS.get(status)).response()
        response.force_close()
        return response

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send the response with the common headers; convert aiohttp's own errors to problems."""
        if isinstance(resp, web.HTTPException) and resp.content_type != PROBLEM_JSON:
            resp = problem_of_aiohttp(resp).response()
        resp.headers.update(_HEADERS)
        if request.content.exception() is not None or not request.content.is_eof():
            resp.force_close()  # where the next request begins is not known, or not worth waiting for
        if self._limit.is_draining:
            resp.force_close()  # and says so: a client that sends another request may get no response to it
        return await super().finish_response(request, resp, start_time)


_DETAILS = {
    400: "this is not HTTP/1.1 (RFC 9112)",
    408: "the header of the request did not arrive in time",
    414: "the URL is too long",
    431: "the header of the request is too large",
}

_NOT_ENCODED = "the URL is not valid: percent-encode all but ASCII, and spaces, as in /user?name=J%C3%BCrgen%20Doe"


def _has_wrong_url(error: BaseException | None) -> bool:
    """Return whether the URL has other characters than it may have, or a space, behind which no version is found."""
    is_spaced = isinstance(error, BadStatusLine) and "Expected HTTP/" in error.message
    return is_spaced or isinstance(error, InvalidURLError)


def _nothing() -> None:
    """Abort no connection: none was made yet."""


def _too_many() -> bytes:
    response = unavailable("too many connections are open", "too_many_connections").response()
    body = cast("bytes", response.body)
    headers = _HEADERS | {
        "Content-Type": PROBLEM_JSON, "Content-Length": str(len(body)), "Retry-After": str(RETRY_AFTER),
        "Connection": "close",
    }  # fmt: skip
    lines = ["HTTP/1.1 503 Service Unavailable", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


_TOO_MANY = _too_many()
"""The response to a connection that is refused, whatever it asks for."""
