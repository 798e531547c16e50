"""Starts workers by forking a warm template, and receives their reports. Not bound to one event loop."""

import asyncio
import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from copy import copy
from datetime import timedelta
from pathlib import Path
from typing import Any

from arqonce.resources import Resource
from arqonce.settings.worker import Settings
from arqonce.spec import JobSpec, Registry
from arqonce.testing.crash.orders import Start, Tell, Work
from arqonce.testing.crash.points import QUIET, WORK

_SOURCE = "from arqonce.testing.crash.template import main; main()"

_DEATH_LIMIT = timedelta(seconds=20)
"""How long it may take until the end of a process is reported, on a busy machine."""


class ForkError(RuntimeError):
    """A worker could not be started; the text names the cure."""


def start_template(variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Start the template with these environment variables added. It ends when its standard input is closed."""
    return subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", _SOURCE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **variables},
        start_new_session=True,
    )


class Fork:
    """A worker process. Its reports are queued in ``reports``."""

    def __init__(self, number: int, log: Path, send: Callable[[Tell], None]) -> None:
        """Begin without reports."""
        self.number = number
        self.log = log
        self._send = send
        self._is_ready = False
        self.reports: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._is_gone = asyncio.Event()

    async def work(self) -> None:
        """Let a worker that stands by claim jobs, as soon as it is ready.

        Raises:
            ForkError: it does not start, or does not obey.
        """
        if not self._is_ready:
            await self._require_report("ready")
            self._is_ready = True
        self._send(Tell(self.number, WORK))
        await self._require_report("at work")

    async def rest(self) -> None:
        """Let it stand by again, and drop its reports.

        Raises:
            ForkError: it has ended by itself, or does not obey.
        """
        self._send(Tell(self.number, QUIET))
        await self._require_report("quiet")

    async def _require_report(self, event: str) -> None:
        if await self.next_report(event, seconds=_DEATH_LIMIT.total_seconds()) is None:
            raise ForkError(f'a worker does not report "{event}" within {_DEATH_LIMIT}: see {self.log}')

    def hear(self, report: dict[str, Any]) -> None:
        """Queue a report."""
        self.reports.put_nowait(report)
        if report["event"] in {"exit", "refused"}:
            self._is_gone.set()

    async def next_report(self, *events: str, seconds: float) -> dict[str, Any] | None:
        """Return the next report of one of these events; ``None`` if none comes within ``seconds``.

        Raises:
            ForkError: the worker could not load the job, or ended by itself.
        """
        try:
            async with asyncio.timeout(seconds):
                while True:
                    report = await self.reports.get()
                    if report["event"] in events:
                        return report
                    self._require_life(report)
        except TimeoutError:
            return None

    async def end(self) -> None:
        """Wait until the process has ended.

        Raises:
            ForkError: it still runs after 20 s.
        """
        try:
            async with asyncio.timeout(_DEATH_LIMIT.total_seconds()):
                await self._is_gone.wait()
        except TimeoutError:
            raise ForkError(f"a worker that was killed has not ended within {_DEATH_LIMIT}: see {self.log}") from None

    def _require_life(self, report: dict[str, Any]) -> None:
        if report["event"] == "refused":
            raise ForkError(
                f"the worker cannot load the job: {report['reason']}. Payload, handler, registry entries and prepare "
                "must be importable: define them at the top of a module, not inside a test"
            )
        if report["event"] == "exit":
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
            raise ForkError(f"the worker ended by itself with exit code {report['code']}; its log ends:\n{tail}")


class Forks:
    """The template process and the workers forked from it."""

    def __init__(self) -> None:
        """Start the template. It needs about a second; the caller does not wait for it."""
        self._process = start_template({"PYTHONPATH": os.pathsep.join(path or os.curdir for path in sys.path)})
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._rest = b""
        self._forks: dict[int, Fork] = {}
        self._started = 0

    def close(self) -> None:
        """End the template and its workers."""
        self._process.communicate(timeout=10)

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Receive reports in the running event loop."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._output, self._hear)
        try:
            yield
        finally:
            loop.remove_reader(self._output)

    @asynccontextmanager
    async def worker(
        self, load: "Load", settings: Settings, directory: Path, *, crash_at: str | None, stands_by: bool = False
    ) -> AsyncIterator[Fork]:
        """Run a worker; kill it at the end, and wait until it has ended. See ``Start`` for what it does."""
        self._started += 1
        fork = Fork(self._started, directory.with_suffix(".other.log" if stands_by else ".log"), self._send)
        order = Start(
            fork=fork.number,
            work=load.work,
            modules=load.modules,
            settings=settings,
            crash_at=crash_at,
            directory=directory,
            log=fork.log,
            stands_by=stands_by,
        )
        self._forks[fork.number] = fork
        self._send(order)
        try:
            yield fork
        finally:
            self._send(Tell(fork.number, signal.SIGKILL))
            await fork.end()  # otherwise it could claim the next job
            del self._forks[fork.number]

    def _send(self, order: Start | Tell) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(pickle.dumps(order))
        self._process.stdin.flush()

    def _hear(self) -> None:
        heard = os.read(self._output, 65536)
        *lines, self._rest = (self._rest + heard).split(b"\n")
        for line in lines:
            report = json.loads(line)
            if fork := self._forks.get(report["fork"]):
                fork.hear(report)
        if not heard:
            for fork in self._forks.values():
                fork.hear({"event": "refused", "reason": "the template process has ended"})


def _work_of(spec: JobSpec[Any, Any]) -> Callable[..., Any] | None:
    return None if spec.phases is None else spec.phases.work


class _StandIn(Resource[Any]):
    """The key of a resource, which opens what a test gives in its place."""

    def __init__(self, resource: Resource[Any], value: object) -> None:
        super().__init__(resource.name, resource._opener)  # noqa: SLF001 - so that both are equal
        self._value = value

    def open(self, _settings: Settings) -> AbstractAsyncContextManager[Any]:
        """Return the value."""
        return nullcontext(self._value)


def _prepared(registry: Registry, resources: Mapping[Resource[Any], object]) -> Registry:
    """Return the registry with these in place of its resources, and without schedules: a proof is of its job alone."""
    if others := [resource.name for resource in resources if resource not in registry.resources]:
        raise ForkError(f"the registry has no resource {', '.join(others)}: it cannot be replaced")
    prepared = copy(registry)
    prepared.schedules = {}
    prepared.resources = tuple(
        _StandIn(resource, resources[resource]) if resource in resources else resource
        for resource in registry.resources
    )
    return prepared


class Load:
    """What workers load: registry and ``prepare``, pickled for another process."""

    def __init__(
        self, registry: Registry, prepare: Callable[[], None] | None, resources: Mapping[Resource[Any], object]
    ) -> None:
        """Pickle them, functions and classes by their names. ``resources`` are given in place of the registry's own.

        Raises:
            ForkError: another process cannot find one of them by its name, or the registry lacks a resource.
        """
        registry = _prepared(registry, resources)
        try:
            self.work = pickle.dumps(Work(registry=registry, prepare=prepare))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ForkError(
                f"{error}: the worker runs in another process and finds functions and classes by their names. Define "
                "payloads, handlers, fakes and prepare at the top of a module, not inside a test"
            ) from error
        self.is_used_up = bool(resources)
        """Whether a worker may serve one run alone, because a resource that stands in may remember what it was told."""
        used = [item for spec in registry for item in (spec.payload, spec.stores, spec.batch, _work_of(spec)) if item]
        used += [*map(type, resources.values()), *([] if prepare is None else [prepare])]
        self.modules = {name: str(getattr(sys.modules[name], "__file__", "")) for name in _modules(used)}


def _modules(used: Iterable[Any]) -> list[str]:
    return sorted({item.__module__ for item in used})
