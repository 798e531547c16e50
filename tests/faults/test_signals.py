"""Every signal that a terminal, a shell or a supervisor sends to end a process. With real processes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from arqonce import JobClient
from arqonce.process.health_file import read_health
from jobs import CreateUser
from tests.conftest import StartWorker, wait_until
from tests.faults.observe import Sessions, users_by_name, wait_for_no_connections

pytestmark = pytest.mark.usefixtures("starts_processes")

WORKER = (sys.executable, "-m", "worker")
COMMANDS = (("run",), ("relay",), ("run", "--processes", "2"))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
async def test_the_end_of_a_terminal_and_its_keys_end_all_in_order(
    number: signal.Signals, start_worker: StartWorker, sessions: Sessions
) -> None:
    """As SIGTERM and Ctrl-C do: with code 0, nothing left open, and no traceback."""
    name = f"signals-{number.name}"
    workers = [start_worker(*WORKER, *command, DATABASE_APPLICATION_NAME=name) for command in COMMANDS]
    for worker in workers:
        worker.process.send_signal(number)

    codes = [await asyncio.to_thread(worker.process.wait, 15) for worker in workers]

    assert codes == [0, 0, 0]
    assert [" stopped" in worker.log and "Traceback" not in worker.log for worker in workers] == [True] * 3
    await wait_for_no_connections(sessions, name)


async def test_nohup_is_respected(start_worker: StartWorker, sessions: Sessions) -> None:
    """Where SIGHUP was ignored at the start it ends nothing, and SIGTERM does."""
    assert sessions is not None
    workers = [start_worker("sh", "-c", 'trap "" HUP; exec "$@"', "sh", *WORKER, *command) for command in COMMANDS]
    for worker in workers:
        worker.process.send_signal(signal.SIGHUP)
    await asyncio.sleep(0.5)  # for the signal to do its harm

    assert [worker.process.poll() for worker in workers] == [None] * 3
    assert [worker.stop() for worker in workers] == [0] * 3


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_ends_it_in_order(number: signal.Signals, environment: dict[str, str]) -> None:
    """Whenever it comes: with code 0, or as Python ends if it was still loading itself; without a traceback."""
    ended = []
    for delay in (0.05, 0.4, 0.8):
        with subprocess.Popen([*WORKER, "run"], env=environment, stderr=subprocess.PIPE, text=True) as process:
            time.sleep(delay)  # the start has no states that can be seen from outside
            process.send_signal(number)
            try:
                _, errors = process.communicate(timeout=20)
            finally:
                process.kill()  # it would take the jobs of other tests
        is_loading = delay < 0.1  # the interpreter: Python itself answers Ctrl-C then, with 1 among its own modules
        codes = {0, -number, 1} if is_loading and number == signal.SIGINT else {0, -number}
        ended.append((process.returncode in codes, "Traceback" in errors and not is_loading))

    assert ended == [(True, False)] * 3


async def test_an_error_output_that_nobody_reads_holds_up_nobody(
    environment: dict[str, str], client: JobClient, sessions: Sessions, tmp_path: Path
) -> None:
    """The pipe is full before the first line: all start, work, and end in order within the grace."""
    reading, writing = _full_pipe()
    processes = []
    for number, command in enumerate(COMMANDS):
        health = tmp_path / f"{number}.health"
        processes.append(_start(command, environment | {"WORKER_HEALTH_FILE": str(health)}, writing))
        await asyncio.to_thread(wait_until, partial(_is_well, health), 20)
    handles = await client.enqueue_many([CreateUser(name=f"User {number}") for number in range(400)])
    await asyncio.gather(*(handle.result() for handle in handles))
    for process in processes:
        process.terminate()

    codes = [await asyncio.to_thread(process.wait, 20) for process in processes]
    for end in (reading, writing):
        os.close(end)

    assert (codes, len(await users_by_name(sessions))) == ([0, 0, 0], 400)


def _is_well(health: Path) -> bool:
    return read_health(health) == []


def _start(command: Sequence[str], environment: dict[str, str], errors: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([*WORKER, *command], env=environment, stderr=errors)


def _full_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)
    return reading, writing


def test_an_order_during_an_import_is_no_death_by_sigint(tmp_path: Path) -> None:
    """Classes and tuples are made by exec() of a text; Python remembers a KeyboardInterrupt that leaves one."""
    (tmp_path / "told.py").write_text(
        "import sys\nfrom arqonce.interruptions import _interrupt\n"
        "try:\n    exec('_interrupt(15, None)')\nexcept KeyboardInterrupt:\n    sys.exit(0)\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])

    ended = subprocess.run([sys.executable, "-m", "told"], env=os.environ | {"PYTHONPATH": path}, check=False)

    assert ended.returncode == 0
