"""One process's side of operations: its figures, its checks, and its port or, under a supervisor, its board."""

import asyncio
import faulthandler
import json
import os
import platform
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import structlog

from arqonce.metrics import families
from arqonce.metrics.engine import EngineMetrics
from arqonce.metrics.lag import EVERY, LoopLag
from arqonce.metrics.store import Store
from arqonce.metrics.text import CONTENT_TYPE, render
from arqonce.operations.endpoint import Page, Response, serving
from arqonce.operations.fleet import Member
from arqonce.operations.queue_figures import QueueReader
from arqonce.settings.operations import OperationsSettings
from arqonce.trouble import AwayTime
from arqonce.versions import version_of
from arqonce.work import Observer

POST_EVERY = round(1 / EVERY.total_seconds())
"""At so many turns of the loop's timer a supervised process posts what is not counted where it happens: each second."""

_PAUSE = timedelta(milliseconds=200)
"""Shortest time between two texts of the figures: writing one takes milliseconds of the loop. An earlier request waits.
It does not get the last text, because then counters would go back where several processes answer in turns."""

_NO_FIGURES = b'{"error": "the queue cannot be read: Redis is away, or our user may not see it"}\n'

Source = Callable[[Store], None]
"""Writes figures that somebody else counts."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.operations.process")


class Operations:
    """What one process shows. Belongs to its event loop."""

    def __init__(self, role: str, fleet: Member | None = None) -> None:
        """Begin with figures of the process itself, and not ready: it starts. A ``fleet`` it shows as a whole."""
        self._fleet = fleet
        self.store = Store(None if fleet is None else fleet.own.memory)
        self.checks: dict[str, Callable[[], bool]] = {
            "started": lambda: self._is_started,
            "accepting": lambda: not self._is_stopping,
        }
        """What must be so for the process to be ready, by name."""
        self.reader: QueueReader | None = None
        """Reads the queues' figures."""
        self._sources: list[Source] = [_Process(role).write]
        self._engine: EngineMetrics | None = None
        self._is_started = False
        self._is_stopping = False
        self._turns = 0
        self._showing = asyncio.Lock()
        self._text, self._shown_at = b"", 0.0

    def observe(self, other: Observer | None) -> EngineMetrics:
        """Return an observer that counts what an engine does, and tells the other one."""
        self._engine = EngineMetrics(self.store, other or Observer())
        return self._engine

    def know(self, kinds: Iterable[str]) -> None:
        """Show these kinds of jobs, also before there was any."""
        if self._engine is not None:
            self._engine.know(kinds)

    def add(self, source: Source) -> None:
        """Show what a source writes."""
        self._sources.append(source)

    def show_server(self, server: str, times: Callable[[], Sequence[AwayTime]]) -> None:
        """Show whether all who ask a server can use it, and for how long they could not. Without it: not ready."""

        def is_up() -> bool:
            return not any(time_away.is_away for time_away in times())

        def write(store: Store) -> None:
            store.set(families.SERVER_UP, is_up(), server)
            store.set(families.OUTAGE, max((time_away.seconds for time_away in times()), default=0.0), server)

        self.checks[server] = is_up
        self.add(write)

    def started(self) -> None:
        """Note that the process has all that it needs."""
        self._is_started = True

    def stopping(self) -> None:
        """Note that the process takes no more work."""
        self._is_stopping = True

    def failed(self) -> list[str]:
        """Return the names of the checks that do not hold."""
        return [name for name, holds in self.checks.items() if not holds()]

    def post(self) -> None:
        """Write all figures that are not counted where it happens. Those of a source that fails are left out."""
        for source in list(self._sources):
            try:
                source(self.store)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a figure: the process is well
                self._sources.remove(source)
                _log.error("some figures cannot be read and are left out from now on", exc_info=error)
        for name, holds in self.checks.items():
            self.store.set(families.READY, holds(), name)

    def turn(self) -> None:
        """Post each second, for a supervisor."""
        self._turns += 1
        if self._turns % POST_EVERY == 0:
            self.post()

    async def metrics(self) -> Response:
        """Return all figures."""
        asked = time.monotonic()
        async with self._showing:
            if self._shown_at < asked:  # else they were written for another, while we waited
                await asyncio.sleep(self._shown_at + _PAUSE.total_seconds() - asked)
                self._text, self._shown_at = await self._write(), time.monotonic()
            return Response(200, self._text, CONTENT_TYPE)

    async def _write(self) -> bytes:
        queues = {} if self.reader is None else (await self.reader.read()).samples()
        self.post()
        figures = [({}, self.store.samples())] if self._fleet is None else self._fleet.groups()
        return render([*figures, ({}, queues)])

    async def alive(self) -> Response:
        """Return that the loop turns: it has run this. Of a fleet: one process's, and the supervisor's."""
        if self._fleet is not None and not self._fleet.is_looked_after:
            return Response(503, b"the supervisor stands still\n")
        return Response(200, b"the event loop turns\n")

    async def ready(self) -> Response:
        """Return whether the process, or one of the fleet, takes work, with each check that does not hold."""
        self.post()
        failed = self.failed() if self._fleet is None else self._fleet.failed()
        if failed:
            return Response(503, "".join(f"not ready: {name}\n" for name in failed).encode())
        return Response(200, b"ready\n")

    async def queue(self) -> Response:
        """Return the queues' figures for scaling; 503 while Redis does not answer: nobody shall scale by a guess."""
        figures = None if self.reader is None else await self.reader.read()
        if figures is None or not figures.queues:
            return Response(503, _NO_FIGURES, "application/json")
        return Response(200, json.dumps(figures.as_json()).encode() + b"\n", "application/json")

    def pages(self, *, has_queues: bool) -> dict[str, Page]:
        """Return what is served."""
        pages = {
            "/metrics": Page(self.metrics),
            "/livez": Page(self.alive, needs_token=False),
            "/readyz": Page(self.ready, needs_token=False),
        }
        return pages | ({"/queue.json": Page(self.queue)} if has_queues else {})


def observer_of(operations: Operations | None, other: Observer | None) -> Observer | None:
    """Return what hears an engine: the other observer and, if something is shown, one that counts."""
    return other if operations is None else operations.observe(other)


@asynccontextmanager
async def open_operations(
    settings: OperationsSettings | None, role: str, *, is_supervised: bool = False, has_queues: bool = True
) -> AsyncIterator[Operations | None]:
    """Measure and serve until the end; yield ``None`` if there is neither a port nor a supervisor.

    Raises:
        ListenError: the port is in use, or the address does not belong to this host.
    """
    fleet = Member.inherited() if is_supervised else None
    is_shown = settings is not None and settings.port is not None
    if fleet is None and (is_supervised or not is_shown):
        yield None
        return
    if fleet is not None:
        faulthandler.register(signal.SIGUSR2, file=fleet.own.descriptor, all_threads=True)  # Fleet.note_hung reads it
    operations = Operations(role, fleet)
    lag = LoopLag(operations.store)
    async with AsyncExitStack() as stack:
        stack.enter_context(lag.measuring())  # its beats tell a supervisor that the loop turns
        if fleet is not None and is_shown:
            lag.on_turn = operations.turn
        if settings is not None and is_shown:
            listener = None if fleet is None else fleet.listener
            pages = operations.pages(has_queues=has_queues)
            await stack.enter_async_context(serving(settings, pages, listener))
        yield operations if is_shown else None
        operations.stopping()


class _Process:
    """Figures of any process, under the names that Prometheus' own clients use."""

    def __init__(self, role: str) -> None:
        self._build = version_of("arqonce") or "unknown", platform.python_version(), role
        self._started = time.time()

    def write(self, store: Store) -> None:
        store.set(families.STARTED, self._started)
        store.set(families.CPU, time.process_time())
        store.set(families.BUILD, 1, *self._build)
        with suppress(OSError):  # not Linux
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            store.set(families.MEMORY, pages * os.sysconf("SC_PAGE_SIZE"))
