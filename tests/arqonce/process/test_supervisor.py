"""``users-worker run --processes N``: real processes, real servers, real signals."""

import asyncio
import errno
import json
import math
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobClient
from arqonce.operations.fleet import Watch
from arqonce.process.health_file import read_health
from arqonce.process.supervisor import Supervisor
from arqonce.settings.worker import WorkerSettings
from arqonce.testing.programs import warm_command
from jobs import CreateUser
from tests.arqonce.process.test_shutdown import (
    Sessions,
    _count_users,
    _wait_for_no_backends,
    _wait_for_waiting_backends,
)
from tests.conftest import StartWorker, WorkerProcess, children_of, wait_until
from tests.warm import programs, run

pytestmark = pytest.mark.usefixtures("starts_processes")

SOON = timedelta(seconds=20)
RUN = (sys.executable, "-m", "worker", "run", "--processes", "2")
LOCK = "LOCK TABLE users IN ACCESS EXCLUSIVE MODE"


def _events(worker: WorkerProcess, event: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in worker.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"].startswith(event)]


def _children(worker: WorkerProcess) -> list[int]:
    """Return the ids of all processes that it has ever started."""
    return [int(str(line["pid"])) for line in _events(worker, "process started")]


def _is_running(pid: int) -> bool:
    """Say whether it runs; one that ended and was not waited for does not."""
    return _command_of(pid) != b""


def _command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


async def _wait(state: Callable[[], bool], seconds: float = 20) -> None:
    await asyncio.to_thread(wait_until, state, seconds)


async def _lock_users(blocker: AsyncSession) -> None:
    await blocker.execute(text(LOCK))


async def test_sigterm_lets_the_jobs_of_all_processes_end(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Jobs that run end within the grace, others stay queued, no process and no health file is left, the code is 0."""
    worker = start_worker(*RUN, DATABASE_APPLICATION_NAME="fleet-term", WORKER_MAX_JOBS="2")
    async with sessions() as blocker:
        await _lock_users(blocker)
        await client.enqueue_many([CreateUser(name=f"User {number}") for number in range(6)])
        await _wait_for_waiting_backends(sessions, "fleet-term", 4)
        worker.process.terminate()
        await _wait(lambda: worker.log.count("worker is stopping") == 2)
        assert worker.process.poll() is None
        await blocker.rollback()

    code = await asyncio.to_thread(worker.process.wait, 20)

    assert (code, await _count_users(sessions), await redis.zcard("arq:queue")) == (0, 4, 2)
    assert await redis.keys("arq:in-progress:*") == []
    assert [pid for pid in _children(worker) if _is_running(pid)] == []
    assert list(worker.health.parent.glob("*.health*")) == []
    assert {(line["event"], line["process"]) for line in _events(worker, "worker ")} == {
        (event, process) for event in ("worker ready", "worker is stopping", "worker stopped") for process in (1, 2)
    }


async def test_a_second_signal_ends_all_processes_at_once(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """No waiting for the grace; the jobs go back all the same."""
    worker = start_worker(
        *RUN, WORKER_SHUTDOWN_GRACE="60s", DATABASE_APPLICATION_NAME="fleet-twice", WORKER_MAX_JOBS="1"
    )
    async with sessions() as blocker:
        await _lock_users(blocker)
        await client.enqueue_many([CreateUser(name=f"User {number}") for number in range(2)])
        await _wait_for_waiting_backends(sessions, "fleet-twice", 2)
        worker.process.terminate()
        await _wait(lambda: worker.log.count("worker is stopping") == 2)
        worker.process.send_signal(signal.SIGINT)

        code = await asyncio.to_thread(worker.process.wait, 10)
        await blocker.rollback()

    attempts = [int(await redis.get(key) or 0) for key in await redis.keys("arq:retry:*")]  # none by a time limit
    assert (code, await redis.zcard("arq:queue"), sum(attempts)) == (0, 2, 0)
    assert await redis.keys("arq:in-progress:*") == []


async def test_ctrl_c_is_one_signal_though_every_process_gets_it(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """A terminal, or systemd, signals all processes by itself: running jobs still have their grace."""
    worker = start_worker("setsid", *RUN, DATABASE_APPLICATION_NAME="fleet-group", WORKER_SHUTDOWN_GRACE="60s")
    async with sessions() as blocker:
        await _lock_users(blocker)
        handle = await client.enqueue(CreateUser(name="Patient"))
        await _wait_for_waiting_backends(sessions, "fleet-group", 1)
        os.killpg(worker.process.pid, signal.SIGINT)
        await _wait(lambda: sum(not _is_running(pid) for pid in _children(worker)) == 1)  # the idle one
        await asyncio.sleep(0.5)  # for a second signal to do its harm
        running = [pid for pid in _children(worker) if _is_running(pid)]
        await blocker.rollback()

    code = await asyncio.to_thread(worker.process.wait, 20)

    assert (len(running), code, await redis.zcard("arq:queue")) == (1, 0, 0)
    assert (await handle.result(timeout=SOON)).name == "Patient"


async def test_killed_processes_are_replaced_and_their_job_is_done(
    start_worker: StartWorker, client: JobClient, sessions: Sessions
) -> None:
    """Each death is logged with the process, its id and the signal; the supervisor lives on and is well again."""
    worker = start_worker(*RUN, WORKER_LEASE="1s", DATABASE_APPLICATION_NAME="fleet-killed")
    async with sessions() as blocker:
        await _lock_users(blocker)
        handle = await client.enqueue(CreateUser(name="Patient"))
        await _wait_for_waiting_backends(sessions, "fleet-killed", 1)
        killed = _children(worker)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        await _wait(lambda: len(_events(worker, "process ended")) == 2)
        ill = read_health(worker.health)
        await blocker.rollback()

    assert (await handle.result(timeout=SOON)).name == "Patient"
    await _wait(lambda: read_health(worker.health) == [])
    assert ["there is no health file" in problem for problem in ill] == [True, True]
    ends = {(line["pid"], line["signal"]) for line in _events(worker, "process ended")}
    assert ends == {(pid, "SIGKILL") for pid in killed}
    assert [_is_running(pid) for pid in _children(worker)] == [False, False, True, True]
    assert await _count_users(sessions) == 1


async def test_a_process_that_is_stopped_alone_is_replaced(start_worker: StartWorker, sessions: Sessions) -> None:
    """SIGTERM to one of them ends it in an orderly way, and another takes its place."""
    assert sessions is not None
    worker = start_worker(*RUN)
    os.kill(_children(worker)[0], signal.SIGTERM)

    await _wait(lambda: len(_children(worker)) == 3)

    assert [line["exit_code"] for line in _events(worker, "process ended")] == [0]
    assert worker.stop() == 0


async def test_processes_end_in_order_when_their_supervisor_is_killed(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """As after SIGTERM: the running job ends, nothing stays locked, no process and no connection is left."""
    worker = start_worker(*RUN, DATABASE_APPLICATION_NAME="fleet-orphan")
    async with sessions() as blocker:
        await _lock_users(blocker)
        handle = await client.enqueue(CreateUser(name="Patient"))
        await _wait_for_waiting_backends(sessions, "fleet-orphan", 1)
        worker.process.kill()
        await _wait(lambda: worker.log.count("worker is stopping") >= 2)
        await blocker.rollback()

    assert (await handle.result(timeout=SOON)).name == "Patient"
    await _wait(lambda: not any(map(_is_running, _children(worker))))
    await _wait_for_no_backends(sessions, "fleet-orphan")
    assert (worker.log.count("worker stopped"), await redis.keys("arq:in-progress:*")) == (2, [])


@pytest.mark.parametrize(
    ("variables", "code", "text_"),
    [
        ({"WORKER_MAX_JOBS": "none"}, 3, "WORKER_MAX_JOBS: Input should be a valid integer"),
        ({"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, 4, "cannot be reached"),
        ({"REDIS_PASSWORD": "wrong"}, 4, "has no password: remove it from REDIS_URL and REDIS_PASSWORD"),
    ],
)
def test_a_start_that_cannot_succeed_says_why_once(
    environment: dict[str, str], variables: dict[str, str], code: int, text_: str
) -> None:
    """One line for all processes, no restarts, and the exit code of a single worker."""
    done = run(RUN, environment | variables, timeout=30)

    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
    assert text_ in done.stderr


async def test_settings_that_became_wrong_end_all(
    start_worker: StartWorker, sessions: Sessions, tmp_path: Path
) -> None:
    """A process that is started again and refuses its settings is not started for ever: all end, with its code."""
    assert sessions is not None
    secret = tmp_path / "worker_max_jobs"
    secret.write_text("2")
    worker = start_worker(*RUN, SECRETS_DIR=str(tmp_path))
    secret.write_text("none")
    os.kill(_children(worker)[0], signal.SIGKILL)

    code = await asyncio.to_thread(worker.process.wait, 20)

    assert (code, [pid for pid in _children(worker) if _is_running(pid)]) == (3, [])


async def test_a_server_that_refuses_a_new_process_is_waited_for(
    start_worker: StartWorker, sessions: Sessions, tmp_path: Path
) -> None:
    """An outage, because it was there at the start: exit code 4 is a reason to try again, and the others work on."""
    assert sessions is not None
    worker = start_worker(*RUN, SECRETS_DIR=str(tmp_path))
    secret = tmp_path / "redis_password"
    secret.write_text("wrong")
    os.kill(_children(worker)[0], signal.SIGKILL)
    await _wait(lambda: [line.get("exit_code") for line in _events(worker, "process ended")] == [None, 4])

    secret.unlink()

    await _wait(lambda: read_health(worker.health) == [])
    assert _is_running(_children(worker)[1])


async def test_a_burst_does_not_wait_for_a_server_that_refuses(
    environment: dict[str, str], client: JobClient, sessions: Sessions, tmp_path: Path
) -> None:
    """Somebody waits for its end: exit code 4, and all end."""
    variables = {"DATABASE_APPLICATION_NAME": "fleet-4", "SECRETS_DIR": str(tmp_path), "WORKER_SHUTDOWN_GRACE": "300ms"}
    await client.enqueue_many([CreateUser(name=f"User {number}") for number in range(4)])
    async with sessions() as blocker:
        await _lock_users(blocker)
        worker = _start([*RUN, "--burst"], environment | variables | {"WORKER_MAX_JOBS": "1"}, tmp_path / "log")
        await _wait_for_waiting_backends(sessions, "fleet-4", 2)
        (tmp_path / "redis_password").write_text("wrong")
        os.kill(_children(worker)[0], signal.SIGKILL)

        code = await asyncio.to_thread(worker.process.wait, 20)
        await blocker.rollback()

    assert (code, [pid for pid in _children(worker) if _is_running(pid)]) == (4, [])


async def test_burst_ends_when_the_queue_is_empty_whoever_died(
    environment: dict[str, str], client: JobClient, sessions: Sessions, tmp_path: Path
) -> None:
    """A process that is killed meanwhile is replaced, its jobs are done after their lease, and the exit code is 0."""
    variables = {"DATABASE_APPLICATION_NAME": "fleet-burst", "WORKER_LEASE": "1s", "WORKER_MAX_JOBS": "1"}
    await client.enqueue_many([CreateUser(name=f"User {number}") for number in range(50)])
    async with sessions() as blocker:
        await _lock_users(blocker)
        worker = _start([*RUN, "--burst"], environment | variables, tmp_path / "log")
        await _wait_for_waiting_backends(sessions, "fleet-burst", 2)
        os.kill(_children(worker)[0], signal.SIGKILL)
        await _wait(lambda: len(_children(worker)) == 3)
        await blocker.rollback()

    code = await asyncio.to_thread(worker.process.wait, 30)

    assert (code, await _count_users(sessions)) == (0, 50)


def _start(command: Sequence[str], environment: dict[str, str], log: Path) -> WorkerProcess:
    """Start without waiting until it is ready."""
    if warm := warm_command(command, environment):
        return WorkerProcess(programs().start(*warm, environment=environment, output=log), log, log)
    with log.open("wb") as file:
        return WorkerProcess(subprocess.Popen(command, env=environment, stderr=file), log, log)


async def test_one_process_has_no_supervisor(start_worker: StartWorker, sessions: Sessions) -> None:
    """``--processes 1`` is the worker itself, as without the option."""
    assert sessions is not None
    worker = start_worker(*RUN[:-1], "1")

    assert children_of(worker.process.pid) == []
    assert json.loads(worker.health.read_text())["servers"] == {"Redis": True, "PostgreSQL": True}


IMPATIENT = """
from datetime import timedelta
from arqonce.operations.fleet import Watch
from arqonce.process import supervisor
from worker.__main__ import main
supervisor._CLOSE_LIMIT = timedelta(seconds=1)
main()
"""

UNFORKABLE = """
import threading, time
threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
"""


@pytest.mark.parametrize("before", ["", UNFORKABLE], ids=["forked", "started"])
async def test_a_process_that_does_not_end_is_killed(
    start_worker: StartWorker, sessions: Sessions, before: str
) -> None:
    """Stopped or hanging, it holds up the end for the grace and some seconds, and the exit code tells of it.

    Where a module has started a thread, processes are started instead of forked, and all else is as usual.
    """
    assert sessions is not None
    worker = start_worker(sys.executable, "-c", before + IMPATIENT, *RUN[3:], WORKER_SHUTDOWN_GRACE="1s")
    stuck = _children(worker)[1]
    assert _command_of(stuck).endswith(b"--supervised\x002\x00") is bool(before)
    os.kill(stuck, signal.SIGSTOP)
    worker.process.terminate()

    try:
        code = await asyncio.to_thread(worker.process.wait, 10)
    finally:
        if _is_running(stuck):
            os.kill(stuck, signal.SIGCONT)

    assert (code, _is_running(stuck)) == (1, False)
    assert [line["pid"] for line in _events(worker, "killing")] == [stuck]


DYING = """
import sys
from datetime import timedelta
from arqonce.operations.fleet import Watch
from arqonce.process import supervisor
from arqonce.process.logs import set_up_logging
from arqonce.settings.worker import WorkerSettings
from arqonce.process.supervisor import Supervisor
set_up_logging(WorkerSettings())
supervisor._LONG_LIFE = timedelta(seconds=float(sys.argv[2]))
watch = Watch(2, None)
sys.exit(Supervisor([sys.argv[1]], WorkerSettings(), watch, burst=False, hang_limit=timedelta(minutes=1)).run())
"""


@pytest.mark.parametrize("command", ["false", "/no/such/program"])
def test_what_dies_at_once_is_restarted_more_and_more_rarely(
    environment: dict[str, str], tmp_path: Path, command: str
) -> None:
    """Also what cannot be started at all. No hot loop; SIGTERM ends a supervisor all of whose processes wait."""
    worker = _start([sys.executable, "-c", DYING, command, "60"], environment, tmp_path / "log")

    wait_until(lambda: len(_pauses(worker)) >= 4, 20)

    assert worker.stop(5) in {0, 1}  # 1 if the signal came while one was dying
    assert all(pause <= 0.5 * 2**turn for turn, pause in enumerate(_pauses(worker)))


def test_what_lived_for_long_is_restarted_soon(environment: dict[str, str], tmp_path: Path) -> None:
    """Pauses begin anew; here, a life of no time at all is long."""
    worker = _start([sys.executable, "-c", DYING, "false", "0"], environment, tmp_path / "log")

    wait_until(lambda: len(_pauses(worker)) >= 7, 20)

    assert worker.stop(5) in {0, 1}
    assert max(_pauses(worker)) <= 0.5


def _pauses(worker: WorkerProcess) -> list[float]:
    """Return how long the first place was empty each time, in seconds."""
    lines = [line for line in _events(worker, "") if line.get("process") == 1]
    return [float(str(line["pause_s"])) for line in lines if "pause_s" in line]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """Yield one that has started nothing, and whose health files are folders: none can be written or removed."""
    for name in ("health", "health.1"):
        (tmp_path / name).mkdir()
    watch = Watch(1, None)
    settings = WorkerSettings.model_construct(health_file=tmp_path / "health")
    yield Supervisor(["false"], settings, watch, burst=False, hang_limit=timedelta(minutes=1))
    watch.close()


def test_a_health_file_that_cannot_be_removed_does_not_end_the_supervisor(supervisor: Supervisor) -> None:
    """A disk was made read-only: the processes would be left without one."""
    (place,) = supervisor._places

    supervisor._vacate(place, 1)

    assert 0 < place.due < math.inf


def test_a_host_without_a_free_file_does_not_end_the_supervisor(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of the whole machine is reached, by whomever: the process is started later."""
    (place,) = supervisor._places

    def fail() -> None:
        raise OSError(errno.ENFILE, "Too many open files in system")

    monkeypatch.setattr(socket, "socketpair", fail)
    supervisor._start(place)

    assert (place.pid, place.line) == (None, None)
    assert 0 < place.due < math.inf


AS_PID_1 = ("unshare", "--pid", "--fork", "--kill-child")


@pytest.fixture
def _pid_namespaces() -> None:
    if subprocess.run([*AS_PID_1, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no right to make a PID namespace")


@pytest.mark.usefixtures("_pid_namespaces")
async def test_as_pid_1_it_hears_signals_and_reaps_orphans(start_worker: StartWorker, sessions: Sessions) -> None:
    """In a container the kernel ignores what PID 1 does not handle, and gives it every orphan."""
    assert sessions is not None
    worker = start_worker(*AS_PID_1, "sh", "-c", "(sleep 0.2 &) ; exec " + shlex.join(RUN))
    (pid_1,) = children_of(worker.process.pid)

    await _wait(lambda: len(children_of(pid_1)) == 2)
    os.kill(pid_1, signal.SIGTERM)

    assert await asyncio.to_thread(worker.process.wait, 20) == 0
    assert worker.log.count("worker stopped") == 2
