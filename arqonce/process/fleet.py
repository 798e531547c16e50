"""Runs several worker processes: from settings to exit code."""

import asyncio
import os
import stat
import sys
from contextlib import AsyncExitStack, ExitStack, suppress
from datetime import timedelta

from redis.asyncio import Redis

from arqonce.connection.redis import build_redis
from arqonce.database.engine import open_database
from arqonce.operations.fleet import Watch
from arqonce.process.lifecycle import require_ready_database, require_safe_redis
from arqonce.process.logs import set_up_logging
from arqonce.process.service import ServiceRun
from arqonce.process.supervised import Supervised
from arqonce.process.supervisor import Supervisor
from arqonce.process.worker import calm_garbage_collector
from arqonce.settings.worker import QueueSettings, Settings, WorkerSettings
from arqonce.spec import Registry

SUPERVISED = "--supervised"
"""Option that is appended to our own command, and the number to it, to start one of the processes."""


_HANG_MARGIN = timedelta(seconds=30)
"""How much longer than the longest deadline an event loop may stand still. A job may block it, though it should not:
until its deadline and ten seconds more its leases are renewed (``engine/guard.py``)."""


def run_processes(settings: Settings, registry: Registry, count: int, *, burst: bool) -> int | Supervised:
    """Supervise ``count`` workers until SIGTERM or SIGINT or, with ``burst``, until all are done; return the exit code.

    Returns in each process that it has forked, too, which is then to run a worker. Checks both servers first, so that
    the reason why workers cannot start is reported once and not ``count`` times.

    Raises:
        StartupError: a server is unreachable, rejects us or is unsafe, or the schema is behind.
        ListenError: the port of operations cannot be opened.
    """
    set_up_logging(settings.worker)
    command = _own_command()
    asyncio.run(_require_servers(settings, registry))
    watch = Watch(count, settings.operations)
    return _supervise(command, settings.worker, watch, registry.longest_deadline, burst=burst)


def run_service_processes(run: ServiceRun, count: int) -> int | Supervised:
    """Supervise ``count`` workers of an arq service likewise; checks Redis first.

    Raises:
        StartupError: Redis is unreachable, rejects us or is unsafe.
        ListenError: the port of operations cannot be opened.
    """
    set_up_logging(run.settings)
    command = _own_command()
    asyncio.run(_require_redis(run.queue))
    watch = Watch(count, run.operations)
    return _supervise(command, run.settings, watch, run.service.longest_timeout, burst=run.burst)


def _supervise(
    command: list[str] | None, settings: WorkerSettings, watch: Watch, longest: timedelta, *, burst: bool
) -> int | Supervised:
    with ExitStack() as stack:
        stack.callback(watch.close)
        limit = settings.hang_limit or longest + _HANG_MARGIN
        ended = Supervisor(command, settings, watch, burst=burst, hang_limit=limit).run()
        if not isinstance(ended, int):
            stack.pop_all()  # a fork: what it has of the fleet is its own to use
    return ended


async def _require_redis(queue: QueueSettings) -> None:
    async with build_redis(
        queue.url.get_secret_value(), Redis, password=queue.plain_password, max_connections=1
    ) as redis:
        await require_safe_redis(redis, queue)


async def _require_servers(settings: Settings, registry: Registry) -> None:
    async with AsyncExitStack() as stack:
        await _require_redis(settings.queue)
        sessions = await stack.enter_async_context(open_database(settings.database, pool_size=1))
        await require_ready_database(sessions, settings.database, registry.schemas)


def _own_command() -> list[str] | None:
    """Return the command that starts a process: our own, with the interpreter's options; ``None`` to fork it.

    A fork needs no second to load everything, and shares the memory of it. To be called before anything of ours starts
    a thread.
    """
    if _is_safe_to_fork():
        calm_garbage_collector()  # or the first collection of each fork would copy all that it shares
        return None
    return [sys.executable, *sys.orig_argv[1:], SUPERVISED]


def _is_safe_to_fork() -> bool:
    """Say whether the modules have started no thread and opened no connection: a fork can share neither.

    Never on macOS, whose own libraries fail in forks; it has no ``/proc``.
    """
    try:
        threads, descriptors = os.listdir("/proc/self/task"), os.listdir("/proc/self/fd")  # noqa: PTH208 - names alone
    except FileNotFoundError:
        return False
    return len(threads) == 1 and not any(_is_socket(int(number)) for number in descriptors if number not in "012")


def _is_socket(descriptor: int) -> bool:
    with suppress(OSError):  # that of the folder has been closed
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    return False
