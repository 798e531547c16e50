"""Decides on a request by its header alone, before any route sees it.

Refuses what the parser accepts and RFC 9112 does not, or what this service cannot do. Answers ``Expect: 100-continue``
only when a body is about to be read: aiohttp would ask for the body before the token was checked.
"""

import re
from asyncio import Task
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler
from multidict import CIMultiDict, CIMultiDictProxy

from web.problems import ProblemError

RequestFactory = Callable[
    [RawRequestMessage, StreamReader, RequestHandler, AbstractStreamWriter, "Task[None]"], web.BaseRequest
]
RequestHandling = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_EXPECTS = web.RequestKey("expects", bool)
_REFUSAL = web.RequestKey("refusal", ProblemError)

_CONTINUE = "100-continue"

_UNREAD = "UNKNOWN"
"""The method of the request that aiohttp makes up when it could not read one."""

_is_host = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.~%!$&'()*+,;=-]*)(?::[0-9]{0,5})?", re.ASCII).fullmatch
"""RFC 9112, 3.2: any other value of Host must be refused with 400."""


def checked_requests(make: RequestFactory, *, max_header: int) -> RequestFactory:
    """Return a factory of requests that know whether they are refused. Responses to any version but 1.0 are 1.1."""

    def build(
        message: RawRequestMessage,
        payload: StreamReader,
        connection: RequestHandler,
        writer: AbstractStreamWriter,
        task: "Task[None]",
    ) -> web.BaseRequest:
        refusal = None if message.method == _UNREAD else _refusal(message, max_header)
        version = HttpVersion10 if message.version == HttpVersion10 and message.method != _UNREAD else HttpVersion11
        expects = hdrs.EXPECT in message.headers
        headers = _without_expect(message.headers) if expects else message.headers
        request = make(message._replace(version=version, headers=headers), payload, connection, writer, task)
        request[_EXPECTS] = expects and version == HttpVersion11
        if refusal is not None:
            request[_REFUSAL] = refusal
        return request

    return build


def refusing(handle: RequestHandling) -> RequestHandling:
    """Return a handler that responds to refused requests with their problem, and passes on all others."""

    async def admit(request: web.BaseRequest) -> web.StreamResponse:
        refusal: ProblemError | None = request.get(_REFUSAL)
        if refusal is None:
            return await handle(request)
        response = refusal.response()
        response.force_close()  # where the next request would begin is doubtful
        return response

    return admit


async def ask_for_body(request: web.BaseRequest) -> None:
    """Send 100 (Continue) if the client waits for it."""
    if request[_EXPECTS] and not request.content.is_eof():
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the response has not begun
    request[_EXPECTS] = False


def _without_expect(headers: Mapping[str, str]) -> "CIMultiDictProxy[str]":
    kept = CIMultiDict(headers)
    kept.popall(hdrs.EXPECT)
    return CIMultiDictProxy(kept)


def _refusal(message: RawRequestMessage, max_header: int) -> ProblemError | None:
    is_old, headers = message.version == HttpVersion10, message.headers
    size = len(message.path) + sum(len(name) + len(value) + len(": \r\n") for name, value in message.raw_headers)
    coding, expected = headers.get(hdrs.TRANSFER_ENCODING), headers.get(hdrs.EXPECT, _CONTINUE)
    reasons = (
        (message.version not in {HttpVersion10, HttpVersion11}, 505, "HTTP/1.1 is spoken here"),
        (size > max_header, 431, "the header of the request is too large"),
        (not _is_host(headers.get(hdrs.HOST, "")), 400, "Host is not a host"),
        (message.method == hdrs.METH_CONNECT, 501, "this is no proxy"),
        (coding is not None and is_old, 400, "HTTP/1.0 has no Transfer-Encoding"),
        ((coding or "chunked").strip().lower() != "chunked", 501, "no Transfer-Encoding but chunked is known"),
        (expected.lower() != _CONTINUE and not is_old, 417, "no expectation but 100-continue can be met"),
    )
    return next((ProblemError(status, detail) for applies, status, detail in reasons if applies), None)
