"""What every page needs: the servers, the poll, and who is logged in."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from aiohttp import web
from redis.asyncio import Redis

from arqonce.application import Application
from arqonce.console.access import Person, Role
from arqonce.console.bulk import BulkActs
from arqonce.console.cookies import Cookies
from arqonce.console.done import DoneActs
from arqonce.console.log_in_limit import LogInLimit
from arqonce.console.poll import Poll
from arqonce.console.settings import Settings
from arqonce.console.shared import Shared
from arqonce.doctor.finding import Finding
from arqonce.overview.looks import Sessions

MOST_AT_ONCE = 4
"""Pages of one person that are made at the same time; further ones wait."""


@dataclass(frozen=True, kw_only=True)
class Console:
    """The parts of a running console."""

    settings: Settings
    application: Application
    sessions: Sessions
    """Of two connections, whose statements end soon."""

    redis: Redis
    poll: Poll
    cookies: Cookies
    log_ins: LogInLimit = field(default_factory=LogInLimit)
    examination: Shared[Sequence[Finding]] = field(default_factory=lambda: Shared(timedelta(seconds=5)))
    """The doctor's findings, for which much is asked of both servers."""

    turns: defaultdict[str, asyncio.Semaphore] = field(
        default_factory=lambda: defaultdict(lambda: asyncio.Semaphore(MOST_AT_ONCE))
    )
    """Of each person: so that nobody takes all connections to PostgreSQL from the others."""

    done: DoneActs = field(default_factory=DoneActs)
    bulk: BulkActs = field(default_factory=BulkActs)


CONSOLE = web.AppKey("console", Console)

PERSON = web.RequestKey("person", Person)


def console_of(request: web.Request) -> Console:
    """Return the console that the request is for."""
    return request.app[CONSOLE]


def person_of(request: web.Request) -> Person:
    """Return who is logged in. There is somebody on every page but that of the log-in."""
    return request[PERSON]


def may_act(request: web.Request) -> bool:
    """Return whether the page may offer acts."""
    return person_of(request).may(Role.OPERATOR)
