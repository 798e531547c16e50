"""Ends a service without losing a request whose client could not know of the end. Knows no route."""

import asyncio
import os
import socket
from contextlib import suppress
from datetime import timedelta
from typing import cast

from aiohttp import web

from web.connection_limit import ConnectionLimit

DRAINING = timedelta(seconds=1)
"""How long connections on which nothing is asked stay open: a proxy may just be sending a request on one of them."""

_STEP = DRAINING / 50


async def drain(runner: web.AppRunner, limit: ConnectionLimit) -> None:
    """Listen no more; answer what arrives on connections that are open, or were made before, and say that they end."""
    limit.is_draining = True
    for connected in await _stop_listening(runner):
        await asyncio.get_running_loop().connect_accepted_socket(_server_of(runner), connected)
    for _ in range(DRAINING // _STEP):
        if not limit.open:
            break
        await asyncio.sleep(_STEP.total_seconds())


async def _stop_listening(runner: web.AppRunner) -> list[socket.socket]:
    """Close the listening sockets; return connections that the kernel has made and nobody has accepted.

    A socket that is closed with connections in its backlog resets them, with the requests that they have sent.
    """
    sites = list(runner.sites)
    servers = cast("list[asyncio.Server]", [site._server for site in sites])  # noqa: SLF001 - as runner.addresses does
    listening = [socket.socket(fileno=os.dup(each.fileno())) for server in servers for each in server.sockets]
    for site in sites:
        await site.stop()
    return [connected for each in listening for connected in _accept_all(each)]


def _accept_all(listening: socket.socket) -> list[socket.socket]:
    accepted: list[socket.socket] = []
    with listening, suppress(OSError):
        listening.settimeout(0)
        while True:
            accepted.append(listening.accept()[0])
    return accepted


def _server_of(runner: web.AppRunner) -> web.Server:
    assert runner.server is not None  # noqa: S101 - it was set up
    return runner.server
