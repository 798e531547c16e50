"""Logs people in with a token, and out again."""

import re
from typing import Annotated

import structlog
from aiohttp import web
from pydantic import Field

from arqonce.console.access import Person, address_of
from arqonce.console.asked import Asked, read_form, read_query
from arqonce.console.core import PERSON, console_of
from arqonce.console.guard import comes_from_elsewhere, peer_of
from arqonce.console.responses import see, show_page

_PATH = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,2000}")
"""A page of the console: no other host, no backslash, which browsers take for a slash."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.console")


class _LogIn(Asked):
    token: Annotated[str, Field(max_length=1000)] = ""
    next: str = "/"

    @property
    def page(self) -> str:
        """Where to go."""
        return self.next if _PATH.fullmatch(self.next) else "/"


async def show_log_in(request: web.Request) -> web.Response:
    """Show the form."""
    return _form(request, read_query(request, _LogIn))


async def log_in(request: web.Request) -> web.Response:
    """Take a token, and give the cookie for it."""
    console, asked, peer = console_of(request), await read_form(request, _LogIn), _client_of(request)
    if wait := console.log_ins.wait(peer):
        seconds = f"{wait.total_seconds():.0f}"
        response = _form(request, asked, f"Too many log-ins have failed. Wait for {seconds} s.", status=429)
        response.headers["Retry-After"] = seconds
        return response
    person = console.cookies.tokens.person_with(asked.token)
    if person is None:
        console.log_ins.failed(peer)
        _log.warning("a log-in failed", peer=peer)
        return _form(request, asked, "Nobody has this token. Was it copied as a whole?", status=401)
    console.log_ins.succeeded(peer)
    _log.info("logged in", person=person.name, peer=peer)
    return _with_cookie(request, see(asked.page), person)


def _form(request: web.Request, asked: _LogIn, problem: str | None = None, *, status: int = 200) -> web.Response:
    # A link of another site, or one that somebody follows who is logged in, could log in somebody else.
    is_safe = not comes_from_elsewhere(request) and PERSON not in request
    return show_page(request, "log_in.html", status=status, next=asked.page, problem=problem, takes_token=is_safe)


def _with_cookie(request: web.Request, response: web.Response, person: Person) -> web.Response:
    cookies = console_of(request).cookies
    response.set_cookie(
        cookies.name,
        cookies.make(person),
        max_age=int(cookies.lasts.total_seconds()),
        path="/",
        secure=cookies.https,
        httponly=True,
        samesite="Strict",
    )
    return response


async def log_out(request: web.Request) -> web.Response:
    """Take the cookie back, and end it: somebody may have copied it."""
    cookies = console_of(request).cookies
    cookies.end(request.cookies.get(cookies.name))
    response = see("/log-in")
    response.del_cookie(cookies.name, path="/", secure=cookies.https, httponly=True, samesite="Strict")
    return response


def _client_of(request: web.Request) -> str:
    """Return the address for the limit: behind a trusted proxy the one that it names last."""
    peer = peer_of(request)
    if console_of(request).settings.console.trusted.has(peer):
        lines = request.headers.getall("X-Forwarded-For", [])  # HAProxy adds a line of its own
        return address_of(",".join(lines).rpartition(",")[2]) or peer
    return peer
