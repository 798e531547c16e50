"""Reads the body of a request: within a time, up to a size, and decompressed no further than that size.

aiohttp would decompress while it receives, before anybody has checked a token: it is told not to (``web.server``).
"""

import asyncio
import zlib
from datetime import timedelta

from aiohttp import hdrs, web

from web.admission import ask_for_body
from web.problems import ProblemError

_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_CODINGS = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}
_ACCEPTED = "gzip, deflate"


async def read_content(request: web.Request, *, most: int, within: timedelta) -> bytes:
    """Return the decompressed body.

    Raises:
        ProblemError: 408 if it does not arrive in time, 413 if it is larger than ``most`` bytes, before or after it was
            decompressed, 415 for an unknown Content-Encoding, 400 if it is broken or cannot be decompressed.
    """
    coding = _coding(request)
    if (request.content_length or 0) > most:
        raise _too_large(most)
    await ask_for_body(request)
    try:
        async with asyncio.timeout(within.total_seconds()):
            data = await _read(request, most)
    except TimeoutError:
        raise ProblemError(408, "the body did not arrive in time", code="body_late") from None
    except (web.RequestPayloadError, ConnectionError):
        raise ProblemError(400, "the body cannot be read", code="malformed_body") from None
    return data if coding is None else _decompress(data, coding, most)


async def _read(request: web.Request, most: int) -> bytes:
    body = bytearray()
    while chunk := await request.content.readany():
        body += chunk
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def _coding(request: web.Request) -> int | None:
    name = ",".join(request.headers.getall(hdrs.CONTENT_ENCODING, [])).strip().lower()
    if name in {"", "identity"}:
        return None
    if name not in _CODINGS:
        detail = f"the Content-Encoding may be one of {_ACCEPTED}"
        raise ProblemError(415, detail, code="unknown_coding", headers={hdrs.ACCEPT_ENCODING: _ACCEPTED})
    return _CODINGS[name]


def _decompress(data: bytes, wbits: int, most: int) -> bytes:
    """Decompress one stream: further members of gzip are refused, of which a small body could hold very many."""
    if wbits == _ZLIB and data and data[0] & 0x0F != zlib.DEFLATED:
        wbits = _RAW  # RFC 9110, 8.4.1.2: some send deflate without its wrapper
    stream = zlib.decompressobj(wbits=wbits)
    try:
        plain = stream.decompress(data, most + 1)
    except zlib.error:
        raise ProblemError(400, "the body cannot be decompressed", code="malformed_body") from None
    if len(plain) > most:
        raise _too_large(most)
    if not stream.eof or stream.unused_data:
        raise ProblemError(400, "the body is not one compressed stream", code="malformed_body")
    return plain


def _too_large(most: int) -> ProblemError:
    return ProblemError(413, f"the body may have {most} bytes, also when it is decompressed")
