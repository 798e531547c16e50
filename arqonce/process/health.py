"""Writes the worker's health to a file, which becomes stale when the event loop hangs."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog

from arqonce.background import running
from arqonce.process.health_file import remove_health

_INTERVAL = timedelta(seconds=5)
"""How often the servers are probed and the file is written."""

_PROBE_LIMIT = timedelta(seconds=4)
"""How long a server may take to answer before it counts as unreachable."""

Probe = Callable[[], Awaitable[object]]
"""Probes a server; raises if it cannot be used."""

_SILENT = "does not answer the worker"


class ServerError(Exception):
    """A server answers but cannot be used. The text says why: "cannot be written to: ..."."""


_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.process.health")


@asynccontextmanager
async def report_health(
    file: Path, probes: dict[str, Probe], problems: Callable[[], list[str]] = list
) -> AsyncIterator[None]:
    """Write the outcome of all probes and other problems to ``file``, now and every 5 s. Remove it at the end."""
    await _report(file, probes, problems)
    try:
        async with running(partial(_report_forever, file, probes, problems), name="health"):
            yield
    finally:
        remove_health(file)


def report_processes(file: Path, count: int) -> None:
    """Write to ``file`` that ``count`` processes report their health, each to its own file (``process_file``)."""
    _write(file, {"pid": os.getpid(), "time": time.time(), "servers": {}, "processes": count})


async def _report_forever(file: Path, probes: dict[str, Probe], problems: Callable[[], list[str]]) -> None:
    while True:
        await asyncio.sleep(_INTERVAL.total_seconds())
        await _report(file, probes, problems)


async def _report(file: Path, probes: dict[str, Probe], problems: Callable[[], list[str]]) -> None:
    answers = await asyncio.gather(*(_trouble_of(probe) for probe in probes.values()))
    troubles = dict(zip(probes, answers, strict=True))
    state = {
        "pid": os.getpid(),
        "time": time.time(),
        "servers": {name: trouble is None for name, trouble in troubles.items()},
        "reasons": {name: trouble for name, trouble in troubles.items() if trouble is not None},
        "problems": problems(),
    }
    _write(file, state)


def _write(file: Path, state: dict[str, object]) -> None:
    fresh = file.with_name(file.name + ".new")
    try:
        fresh.write_text(json.dumps(state))
        fresh.replace(file)
    except OSError as error:
        _log.warning("cannot write WORKER_HEALTH_FILE", file=str(file), reason=error.strerror)


async def _trouble_of(probe: Probe) -> str | None:
    try:
        async with asyncio.timeout(_PROBE_LIMIT.total_seconds()):
            await probe()
    except ServerError as error:
        return str(error)
    except Exception:  # noqa: BLE001 - after any error: the server did not answer
        return _SILENT
    return None
