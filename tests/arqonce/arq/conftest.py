"""Starts arq services of ``shapes`` with arq's own command or with ours: the same settings, queue and producer."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool
from redis.asyncio import Redis

from arqonce.testing.programs import Programs
from arqonce.testing.worker_process import WorkerProcess
from tests.arqonce.arq.shapes.effects import create_effects

Command = Literal["arq", "arqonce"]
StartShape = Callable[[Command, str], WorkerProcess]

COMMANDS: dict[Command, tuple[str, ...]] = {
    "arq": ("arq", "{settings}"),
    "arqonce": ("arqonce", "run", "--settings", "{settings}", "--pickle"),
}
_ROOT = Path(__file__).parents[3]


@pytest.fixture
def effects(tmp_path: Path) -> Path:
    """Return the file of effects, which has none."""
    file = tmp_path / "effects.sqlite"
    create_effects(file)
    return file


@pytest.fixture
async def shapes_pool(redis: Redis, valkey_url: str) -> AsyncIterator[ArqRedis]:
    """Yield arq's own producer as most services have it: without serializers."""
    assert redis is not None  # the queue is empty
    pool = await create_pool(RedisSettings.from_dsn(valkey_url))
    yield pool
    await pool.aclose()


@pytest.fixture
def start_shape(jobs_programs: Programs, effects: Path, valkey_url: str, tmp_path: Path) -> Iterator[StartShape]:
    """Yield a function that starts a worker of settings in ``shapes``; what still runs at the end is killed."""
    usual = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "REDIS_"))}
    environment = usual | {
        "PYTHONPATH": str(_ROOT),
        "SHAPES_EFFECTS": str(effects),
        "SHAPES_REDIS": valkey_url,
        "WORKER_LEASE": "2s",
        "WORKER_SHUTDOWN_GRACE": "1s",
    }
    with ExitStack() as stack:

        def start(command: Command, settings: str) -> WorkerProcess:
            settings = f"tests.arqonce.arq.shapes.{settings}"
            module, *arguments = (part.format(settings=settings) for part in COMMANDS[command])
            log = tmp_path / f"{uuid4().hex}.log"
            variables = environment | {"SHAPES_COMMAND": command}
            process = jobs_programs.start(module, *arguments, environment=variables, output=log)
            worker = WorkerProcess(process, log, health=tmp_path / "unused")
            stack.callback(_kill_group, worker)
            return worker

        yield start


def _kill_group(worker: WorkerProcess) -> None:
    """Kill the process, and those of its pools: a process pool outlives a killed owner, because it waits for itself."""
    with suppress(ProcessLookupError):
        os.killpg(worker.process.pid, signal.SIGKILL)
    worker.kill()
