"""Starts, stops, resumes and ends the processes of contenders. None outlives the benchmark."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from arqonce.embedded.process import die_with
from bench.contenders import Contender
from bench.target import Target

ROOT = Path(__file__).parent.parent

_TICK = os.sysconf("SC_CLK_TCK")
"""Clock ticks per second."""


class ContenderError(RuntimeError):
    """A contender failed. The benchmark reports it and continues without it."""


def python_of(contender: Contender) -> str:
    """Return the interpreter of the contender's environment."""
    if contender.environment == "own":
        return sys.executable
    return str(ROOT / f".venv-{contender.environment}/bin/python")


@dataclass
class Worker:
    """The worker processes of a contender: a process group that is stopped, resumed and ended as a whole."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def hold(self) -> None:
        """Stop the processes with SIGSTOP."""
        os.killpg(self.process.pid, signal.SIGSTOP)

    def let_go(self) -> None:
        """Resume the processes with SIGCONT."""
        os.killpg(self.process.pid, signal.SIGCONT)

    def tell(self, line: str) -> None:
        """Write a line to the worker's standard input."""
        stdin = self._stdin()
        stdin.write(f"{line}\n".encode())
        stdin.flush()

    def _stdin(self) -> IO[bytes]:
        if self.process.stdin is None:
            raise ContenderError("the worker has no standard input")
        return self.process.stdin

    def require_alive(self) -> None:
        """Raise with the end of its log if the first process has ended."""
        if self.process.poll() is not None:
            raise ContenderError(f"ended with {self.process.returncode}: {self.log_end()}")

    def log_end(self) -> str:
        """Return the last line of the log."""
        return last_line(self.log.read_text(errors="replace"))

    def pids(self) -> list[int]:
        """Return the process ids of the group."""
        return [pid for pid in _all_pids() if _group_of(pid) == self.process.pid]

    def cpu_seconds(self) -> float:
        """Return the CPU time of all processes, in seconds."""
        return sum(_cpu_seconds(pid) for pid in self.pids())

    def resident_bytes(self) -> int:
        """Return the resident memory of the first process, in bytes."""
        with Path(f"/proc/{self.process.pid}/statm").open() as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> None:
        """Kill all processes of the group."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()


def _all_pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _group_of(pid: int) -> int | None:
    stat = _stat(pid)
    return int(stat[2]) if stat else None


def _cpu_seconds(pid: int) -> float:
    stat = _stat(pid)
    return (int(stat[11]) + int(stat[12])) / _TICK if stat else 0.0


def clean_environment() -> dict[str, str]:
    """Return our environment without settings, and with what lets a process find and keep compiled modules."""
    foreign = {name for name in os.environ if name.startswith(("DATABASE_", "REDIS_", "WORKER_"))}
    inherited = {name: value for name, value in os.environ.items() if name not in foreign - {"WORKER_MAX_JOBS"}}
    return inherited | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}


def _environment(target: Target) -> dict[str, str]:
    return clean_environment() | target.environment()


def start_worker(contender: Contender, target: Target, *, log: Path, processes: int = 1) -> Worker:
    """Start worker processes in their own process group; they die with us."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python_of(contender), "-m", "bench.child", "worker", contender.name, str(processes)],
            env=_environment(target),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
            preexec_fn=die_with(os.getpid(), signal.SIGKILL),  # noqa: PLW1509 - makes two system calls, takes no lock
        )
    return Worker(process, log)


class ProducerProcess:
    """A producer of a contender, which executes commands line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, command: str, *, limit: float = 120, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
        """Execute a command; return the answer.

        Raises:
            ContenderError: the producer ended, or took longer than ``limit`` seconds.
        """
        if self._process.stdin is None:
            raise ContenderError("the producer has no standard input")
        self._process.stdin.write(json.dumps({"do": command} | arguments).encode() + b"\n")
        await self._process.stdin.drain()
        return await self.answer(limit)

    async def answer(self, limit: float) -> dict[str, Any]:
        """Read one answer from its output."""
        if self._process.stdout is None:
            raise ContenderError("the producer has no standard output")
        try:
            async with asyncio.timeout(limit):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise ContenderError(f"the producer took longer than {limit:g} s") from None
        if not line:
            raise ContenderError(f"the producer ended: {await self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def _last_words(self) -> str:
        if self._process.stderr is None:
            return ""
        return last_line((await self._process.stderr.read()).decode(errors="replace"))


def last_line(log: str) -> str:
    """Return the last line, such as the error of a traceback, whose paths do not interest readers of a report."""
    return (log.strip().splitlines() or [""])[-1][-400:]


@asynccontextmanager
async def open_producer(contender: Contender, target: Target) -> AsyncIterator[ProducerProcess]:
    """Yield a connected producer, and kill it afterwards."""
    process = await asyncio.create_subprocess_exec(
        *(python_of(contender), "-m", "bench.child", "producer", contender.name),
        env=_environment(target),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=16 * 1024 * 1024,
        preexec_fn=die_with(os.getpid(), signal.SIGKILL),
    )
    try:
        producer = ProducerProcess(process)
        await producer.answer(30)
        yield producer
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
