"""What every request must pass before a page is asked: its host, its origin, who sends it, and how long it takes."""

import asyncio
import re
from datetime import timedelta
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from arqonce.connection.redis import explain
from arqonce.console.access import UNIX, Person
from arqonce.console.asked import PageError
from arqonce.console.core import PERSON, console_of
from arqonce.console.rendering import link, sentence
from arqonce.console.responses import see, show_page
from arqonce.console.settings import ConsoleSettings
from arqonce.database.faults import sqlstate_of
from arqonce.failures import QueueUnavailableError
from arqonce.process.startup_errors import explain_database

_LIMIT = timedelta(seconds=10)
"""How long an answer may take to be made. Statements end sooner."""

_LIVE = "/live"
"""Lasts as long as somebody looks."""

OPEN_PATHS = re.compile(r"/log-in|/static/[a-z.]+")
"""Paths that need nobody to be logged in."""

_LOCAL = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")

_CANCELLED = "57014"

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: with that, browsers say nothing of the origin of a form, and it could not be checked.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.console")


async def add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Forbid what browsers would otherwise allow. Nothing is kept by them, unless it says so itself."""
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.popall("Server", None)


@web.middleware
async def explain_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a page that says what is wrong. None shows a traceback."""
    try:
        async with asyncio.timeout(None if request.path == _LIVE else _LIMIT.total_seconds()) as limit:
            return await handler(request)
    except PageError as error:
        return _explain(request, error)
    except web.HTTPException as error:
        if error.status < 400:  # noqa: PLR2004 - a redirect
            raise
        response = _explain(request, _of_http(error))
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        return response
    except (SQLAlchemyError, RedisError, QueueUnavailableError, OSError) as error:
        if limit.expired():
            text = f"There was no answer within {_LIMIT.total_seconds():g} s."
            return _explain(request, PageError(503, "A server takes too long", text))
        return _explain(request, _of_server(request, error))
    except Exception:  # noqa: BLE001 - a fault of ours, which the log has
        _log.exception("a page failed", path=request.path.split("/")[1])
        return _explain(request, PageError(500, "This page has failed", "The log of the console says why."))


def _explain(request: web.Request, error: PageError) -> web.StreamResponse:
    is_away = error.status == 503 and request.method == "GET"  # noqa: PLR2004
    return show_page(request, "error.html", status=error.status, error=error, is_away=is_away)


def _of_http(error: web.HTTPException) -> PageError:
    match error.status:
        case 404:
            return PageError(404, "There is no such page", "Correct the address, or begin at the overview.")
        case 405:
            return PageError(405, "This cannot be done so", "Use the form of the page: no act is done by an address.")
        case 413:
            return PageError(413, "This is too long", "A form may have 64 KiB and 1,000 fields.")
        case _:
            return PageError(error.status, "This request cannot be read")


def _of_server(request: web.Request, error: Exception) -> PageError:
    settings = console_of(request).settings
    url = settings.queue.url.get_secret_value()
    if isinstance(error, RedisError | QueueUnavailableError):
        known = error if isinstance(error, QueueUnavailableError) else explain(error, url)
        return PageError(503, "Redis is away", sentence(str(known)))
    if isinstance(error, PoolTimeoutError):
        return PageError(503, "The console is busy", "Others ask it for much at the same time. Wait a moment.")
    if sqlstate_of(error) == _CANCELLED:
        limit = settings.console.statement_timeout.total_seconds()
        return PageError(503, "PostgreSQL takes too long", f"It did not answer within {limit:g} s. Ask for less.")
    return PageError(503, "PostgreSQL is away", sentence(explain_database(error, settings.database)))


def require_known_host(settings: ConsoleSettings) -> Middleware:
    """Return a middleware that refuses requests for other names.

    Without it, a page of another site could let its own name mean this host, and read what is here.
    """
    names = settings.names

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "").lower()
        if host not in names and not (_LOCAL.fullmatch(host) and settings.socket is None):
            raise PageError(
                421, "This is not the name of this page", "CONSOLE_HOSTS has the names that browsers may use."
            )
        return await handler(request)

    return guard


@web.middleware
async def require_own_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse forms that another site has sent, and pages that it asks for as parts of its own.

    All browsers name the origin of a form. A proxy may log in whoever has its cookie, which need not be strict.
    """
    if comes_from_elsewhere(request) and request.headers.get("Sec-Fetch-Dest", "document") != "document":
        raise PageError(403, "This page is no part of another", "Open it by itself.")
    if request.method not in {"GET", "HEAD"}:
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        settings, (scheme, origin) = console_of(request).settings.console, _parts_of(request.headers.get("Origin", ""))
        own = {request.headers.get("Host", "").lower(), *settings.names}
        is_plain = settings.https and scheme != "https" and not _LOCAL.fullmatch(origin)
        if site != "same-origin" or not origin or origin not in own or is_plain:
            raise PageError(403, "This form is not of this page", "Open the page anew, and send the form from there.")
    return await handler(request)


def comes_from_elsewhere(request: web.Request) -> bool:
    """Return whether another site leads here, as browsers say."""
    return request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}


def _parts_of(origin: str) -> tuple[str, str]:
    try:
        parts = urlsplit(origin)
    except ValueError:
        return "", ""
    return parts.scheme, parts.netloc.lower()


@web.middleware
async def require_person(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find out who sends the request, and show the log-in to everybody else."""
    person = find_person(request)
    if person is not None:
        request[PERSON] = person
        if request.path != _LIVE:
            async with console_of(request).turns[person.name]:
                return await handler(request)
    elif not OPEN_PATHS.fullmatch(request.path):
        return _ask_for_log_in(request)
    return await handler(request)


def find_person(request: web.Request) -> Person | None:
    """Return who has logged in: at a proxy that is trusted, or here."""
    console = console_of(request)
    settings = console.settings.console
    if settings.user_header is not None and settings.trusted.has(peer_of(request)):
        named = request.headers.getall(settings.user_header, [])
        if len(named) > 1:
            raise PageError(400, "The proxy names two users", "Let it remove the header that browsers send.")
        if named:
            rights = (settings.users or {}).get(named[0])
            if rights is None:
                raise PageError(403, "You have no rights here", "CONSOLE_USERS does not have your name.")
            return Person(named[0], rights)
    return console.cookies.read(request.cookies.get(console.cookies.name))


def peer_of(request: web.Request) -> str:
    """Return the address of who has connected; ``unix`` through a Unix socket, empty if it is not known."""
    if console_of(request).settings.console.socket is not None:
        return UNIX  # and not the name of its own socket, which it may call 10.0.0.5
    return request.remote or ""


def _ask_for_log_in(request: web.Request) -> web.StreamResponse:
    if request.method not in {"GET", "HEAD"} or request.headers.get("Sec-Fetch-Dest", "document") != "document":
        raise PageError(401, "You are not logged in", "Log in, and do it again.")
    if comes_from_elsewhere(request):
        return show_page(request, "again.html")  # a link from elsewhere: its browser keeps the strict cookie back
    return see(link("/log-in", next=request.raw_path if request.path != "/" else None))
