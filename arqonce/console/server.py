"""Runs the console: opens the servers, listens, and ends in order."""

import asyncio
import errno
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import structlog
from aiohttp import web
from redis.asyncio import Redis

from arqonce.application import Application
from arqonce.connection.redis import build_redis
from arqonce.console.access import Tokens
from arqonce.console.application import build_app
from arqonce.console.connection import Runner
from arqonce.console.cookies import Cookies
from arqonce.console.core import Console
from arqonce.console.poll import EVERY, Poll, Servers
from arqonce.console.settings import Settings
from arqonce.database.engine import open_database
from arqonce.operations.endpoint import ListenError
from arqonce.process.ending import MARGIN, Ending
from arqonce.process.event_loop import fastest_loop, run_to_the_end
from arqonce.process.logs import log_to_stderr

_OF_PAGES = 2
"""Connections to PostgreSQL. The poll has one more of its own: busy pages must not look like an outage."""

_REDIS_CONNECTIONS = 4

_GRACE = timedelta(seconds=5)
"""How long requests may continue after SIGTERM."""

_IDLE = timedelta(seconds=30)
"""How long a connection is kept on which nothing is asked."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.console")


def run_console(settings: Settings, application: Application) -> None:
    """Serve until a signal; a second signal ends it at once. Owns the event loop.

    Servers that are away are no error: the pages say so, and recover by themselves.

    Raises:
        ListenError: the address is in use, or does not belong to this host.
    """
    log_to_stderr(settings.worker.log_format, settings.worker.log_level)
    ending = Ending(_GRACE)
    with asyncio.Runner(loop_factory=fastest_loop()) as runner:
        run_to_the_end(runner, _serve(settings, application, ending), ending)


async def _serve(settings: Settings, application: Application, ending: Ending) -> None:
    ending.begin()
    told = ending.told_to_stop()
    async with open_console(settings, application) as console:
        runner = build_runner(console)
        try:
            await runner.setup()
            where = await listen(runner, settings)
            _log.info("console ready", address=where)
            ending.ready(lambda: f"serving on {where}")
            await told.wait()
            _log.info("told to stop")
        finally:
            ending.limit(_GRACE + MARGIN)
            await runner.cleanup()


@asynccontextmanager
async def open_console(
    settings: Settings, application: Application, *, every: timedelta = EVERY
) -> AsyncIterator[Console]:
    """Open what pages need. Nothing connects yet. While somebody looks, servers are asked so often."""
    url = settings.queue.url.get_secret_value()
    connections = {"max_connections": _REDIS_CONNECTIONS, "retries": 1}
    async with (
        build_redis(url, Redis, password=settings.queue.plain_password, **connections) as redis,
        open_database(settings.database, pool_size=_OF_PAGES) as sessions,
        open_database(settings.database, pool_size=1) as own_sessions,
    ):
        poll = Poll(Servers(redis, url, settings.worker.queue.names, own_sessions, settings.database).read, every=every)
        own = settings.console
        cookies = Cookies(Tokens(own.tokens or {}), key=own.key, lasts=own.session, https=own.https)
        console = Console(
            settings=settings, application=application, sessions=sessions, redis=redis, poll=poll, cookies=cookies
        )
        try:
            yield console
        finally:
            await console.bulk.close()
            await poll.close()


def build_runner(console: Console, *, idle: timedelta = _IDLE, grace: timedelta = _GRACE) -> web.AppRunner:
    """Build what serves the pages. Whoever sends nothing, or no whole header, is disconnected after ``idle``."""
    return Runner(
        build_app(console),
        access_log=None,
        auto_decompress=False,  # no browser compresses a form, and 50 kB may hold 50 MB
        keepalive_timeout=idle.total_seconds(),
        shutdown_timeout=grace.total_seconds(),
    )


async def listen(runner: web.AppRunner, settings: Settings) -> str:
    """Listen, and return where.

    Raises:
        ListenError: it cannot.
    """
    own = settings.console
    try:
        if own.socket is not None:
            await _require_unused(own.socket)
            await web.UnixSite(runner, own.socket).start()
            _let_in(Path(own.socket))
            return own.socket
        await web.TCPSite(runner, own.host, own.port).start()
    except OSError as error:
        where = own.socket or f"{own.host}:{own.port}"
        cure = "correct CONSOLE_HOST and CONSOLE_PORT, or CONSOLE_SOCKET"
        raise ListenError(f"cannot listen on {where} ({error.strerror or error}): {cure}") from error
    host, port = runner.addresses[0][:2]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _let_in(path: Path) -> None:
    """Let whoever may enter the socket's folder connect, if that is not everybody: a proxy is another user."""
    if not path.parent.stat().st_mode & stat.S_IXOTH:
        path.chmod(0o666)


async def _require_unused(path: str) -> None:
    """Raise if somebody listens on the socket: asyncio would take its place, and leave the other one without."""
    with suppress(ConnectionRefusedError, FileNotFoundError):
        _, writer = await asyncio.open_unix_connection(path)
        writer.close()
        raise OSError(errno.EADDRINUSE, "another program listens on it")
