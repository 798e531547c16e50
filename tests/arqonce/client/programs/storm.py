"""Callers share one client for a while, through a network that fails at random, and check each answer by its content.

``make storm ARGS="--seconds 60"``; or, in another Python with nothing but redis-py, hiredis and pydantic, this program
with ``PYTHONPATH`` at the checkout and the port of a Valkey, which may hold other things. ``--tasks`` takes the
asyncio client, ``--kill`` raises an exception in threads at any line now and then, ``--switch 1e-6`` makes threads
change places all the time. Prints what happened as JSON; ends with 1 if an answer was wrong, an error none of ours, or
a call overdue.
"""

import argparse
import asyncio
import ctypes
import faulthandler
import inspect
import json
import random
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from arqonce import JobClient, JobStatus, SyncJobClient
from arqonce.client.answers import LOOK_AGAIN
from arqonce.failures import JobError, QueueUnavailableError
from jobs import CreateUser

LONGEST = 12.0
"""Seconds that a call may last beyond its own timeout, and with none, beyond the next look."""

Client = Any
Action = Callable[[Client, random.Random, str], Coroutine[Any, Any, None]]


class Killed(BaseException):
    """Raised in a thread at any line, as by Ctrl-C or the end of a greenlet."""


def _is_cancelled() -> bool:
    """Say whether somebody has cancelled this task, and take it back."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0 and task.uncancel() >= 0


class Record:
    """What happened."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.worst: dict[str, float] = {}
        self.wrong: list[str] = []
        self.handles: list[tuple[Any, str]] = []

    async def call(self, name: str, call: Callable[[], Any], *, lasts: float = 0.0) -> Any:  # noqa: ANN401 - what was called
        """Make one call and return its answer, ``None`` after one of our errors; it may wait ``lasts`` seconds."""
        start = time.monotonic()
        try:
            answer = call()
            answer = await answer if inspect.isawaitable(answer) else answer
            self._note(name, "answers", start, lasts)
        except (JobError, TimeoutError) as error:
            self._note(name, type(error).__name__, start, lasts)
            if not isinstance(error, (QueueUnavailableError, TimeoutError)) or type(error).__module__[:5] == "redis":
                self.fail(f"{name}: {error!r}")
            return None
        except (Killed, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and not _is_cancelled():
                self.fail(f"{name}: {traceback.format_exc()}")  # nobody has cancelled us
            self._note(name, "killed", start, lasts)
            return None
        except Exception:  # noqa: BLE001 - whatever it is
            self.fail(f"{name}: {traceback.format_exc()}")
            return None
        return answer

    def _note(self, name: str, what: str, start: float, lasts: float) -> None:
        lasted = time.monotonic() - start - lasts
        with self.lock:
            self.counts[what] += 1
            self.worst[name] = max(self.worst.get(name, 0.0), lasted)
        if lasted > LONGEST:
            self.fail(f"{name}: overdue, {what} after {lasted:.1f} s")

    def fail(self, text: str) -> None:
        """Note what must not happen."""
        with self.lock:
            self.wrong.append(text)

    def expect(self, got: object, wanted: object, what: str) -> None:
        """Note an answer that is not the true one; ``None`` is none."""
        if got is not None and got != wanted:
            self.fail(f"{what}: got {got!r}, not {wanted!r}")


async def _enqueue_and_wait(record: Record, client: Client, luck: random.Random, name: str) -> None:
    handle = await record.call("enqueue", lambda: client.enqueue(CreateUser(name=name), key=f"key-of-{name}"))
    if handle is None:
        return
    record.handles.append((handle, name))
    record.expect(handle.job_id, f"key-of-{name}", "job_id")
    seconds = luck.choice((0.0, 0.01, 0.3, 3.0, None))
    timeout = None if seconds is None else timedelta(seconds=seconds)
    lasts = LOOK_AGAIN.total_seconds() if seconds is None else seconds
    user = await record.call("result", lambda: handle.result(timeout=timeout), lasts=lasts)
    record.expect(user and user.name, name, "result")
    again = await record.call("enqueue", lambda: client.enqueue(CreateUser(name=name), key=f"key-of-{name}"))
    record.expect(again and ("new" if again.is_new else "duplicate"), "duplicate", "second enqueue")


async def _enqueue_many(record: Record, client: Client, luck: random.Random, name: str) -> None:
    names = [f"{name}.{number}" for number in range(luck.choice((1, 7, 20)))]
    keys = [f"key-of-{one}" for one in names]
    payloads = [CreateUser(name=one) for one in names]
    handles = await record.call("enqueue_many", lambda: client.enqueue_many(payloads, keys=keys))
    if handles is not None:
        record.expect([one.job_id for one in handles], keys, "enqueue_many")
        record.handles.extend(zip(handles[:3], names[:3], strict=False))


async def _look_back(record: Record, client: Client, luck: random.Random, _name: str) -> None:
    if not record.handles:
        return
    known, name = luck.choice(record.handles)
    handle = client.handle(CreateUser, known.job_id)
    user = await record.call("result", lambda: handle.result(timeout=timedelta(seconds=2)), lasts=2)
    record.expect(user and user.name, name, "result of handle")
    info = await record.call("info", handle.info)
    if info is not None and (user is not None or info.status.has_ended):
        record.expect((info.status, info.job_name), (JobStatus.SUCCEEDED, name), "info")


async def _miss(record: Record, client: Client, _luck: random.Random, name: str) -> None:
    status = await record.call("status", client.handle(CreateUser, f"no-{name}").status)
    record.expect(status, JobStatus.NOT_FOUND, "status")


async def _abort(record: Record, client: Client, _luck: random.Random, name: str) -> None:
    payload = CreateUser(name=f"later-{name}")
    handle = await record.call("enqueue", lambda: client.enqueue(payload, delay=timedelta(hours=1)))
    if handle is not None:
        was = await record.call("abort", lambda: handle.abort(timeout=timedelta(seconds=5)), lasts=5)
        record.expect(was, wanted=True, what="abort")


async def _ping(record: Record, client: Client, _luck: random.Random, _name: str) -> None:
    await record.call("ping", client.ping)


ACTIONS = (_enqueue_and_wait, _enqueue_and_wait, _enqueue_many, _look_back, _miss, _abort, _ping)


async def _work(record: Record, client: Client, seed: str, end: float) -> None:
    """Call without a pause."""
    luck = random.Random(seed)
    number = 0
    while time.monotonic() < end:
        number += 1
        try:
            await luck.choice(ACTIONS)(record, client, luck, f"{seed}.{number}")
        except Killed:  # between two calls
            continue
        except asyncio.CancelledError:
            _is_cancelled()
        except Exception:  # noqa: BLE001 - whatever it is, the thread must not end without a word
            record.fail(traceback.format_exc())


async def _find_all(record: Record, handles: list[tuple[Any, str]]) -> None:
    """See in good weather that nothing was lost."""
    for handle, name in handles:
        wait = partial(handle.result, timeout=timedelta(seconds=20))
        user = await record.call("result at the end", wait, lasts=20)
        if user is None:
            record.fail(f"no result at the end: {name}")
        record.expect(user and user.name, name, "result at the end")


def _drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run what awaits nothing."""
    with suppress(StopIteration):
        coroutine.send(None)


def _kill_at_times(threads: list[threading.Thread], luck: random.Random, end: float) -> int:
    killed = 0
    while time.monotonic() < end:
        time.sleep(luck.expovariate(20))
        victim = luck.choice(threads)
        killed += ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(victim.ident or 0), ctypes.py_object(Killed)
        )
    return killed


def _storm_of_threads(options: argparse.Namespace, url: str, record: Record, calm: Callable[[], None]) -> None:
    client = SyncJobClient(url)
    end = time.monotonic() + options.seconds
    threads = [
        threading.Thread(target=lambda n=number: _drive(_work(record, client, f"{options.run}.{n}", end)), daemon=True)
        for number in range(options.callers)
    ]
    for thread in threads:
        thread.start()
    if options.kill:
        record.counts["kills"] = _kill_at_times(threads, random.Random(options.seed), end)
    limit = end + 3 * LONGEST + 10
    for thread in threads:
        thread.join(max(0, limit - time.monotonic()))
    if hung := sum(thread.is_alive() for thread in threads):
        record.fail(f"{hung} threads hang")
        faulthandler.dump_traceback()
    calm()
    _drive(_find_all(record, record.handles))
    client.close()


async def _storm_of_tasks(options: argparse.Namespace, url: str, record: Record, calm: Callable[[], None]) -> None:
    while True:
        with suppress(JobError):
            async with JobClient(url) as client:
                end = time.monotonic() + options.seconds
                tasks = [
                    asyncio.create_task(_work(record, client, f"{options.run}.{number}", end))
                    for number in range(options.callers)
                ]
                if options.kill:
                    luck = random.Random(options.seed)
                    while time.monotonic() < end:
                        await asyncio.sleep(luck.expovariate(20))
                        record.counts["kills"] += luck.choice(tasks).cancel()
                _done, hung = await asyncio.wait(tasks, timeout=options.seconds + 3 * LONGEST + 10)
                if hung:
                    record.fail(f"{len(hung)} tasks hang")
                    for task in hung:
                        task.print_stack(limit=20)
                        task.cancel()
                await asyncio.to_thread(calm)
                await _find_all(record, record.handles)
                return


def _run(options: argparse.Namespace, port: int) -> tuple[Record, dict[str, int]]:
    world = Path(__file__).parent / "storm_world.py"
    command = [sys.executable, str(world), *map(str, (port, options.seed, options.faults, options.silence))]
    record, faults = Record(), dict[str, int]()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        told, tells = process.stdin, process.stdout
        assert told is not None
        assert tells is not None
        url = f"redis://127.0.0.1:{int(tells.readline())}/0"

        def calm() -> None:
            told.write("calm\n")
            faults.update(json.loads(tells.readline()))

        try:
            if options.tasks:
                asyncio.run(_storm_of_tasks(options, url, record, calm))
            else:
                _storm_of_threads(options, url, record, calm)
        finally:
            process.kill()
    return record, faults


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int, nargs="?", help="of a Valkey; without it, one is started")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--callers", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=float, default=10, help="a second")
    parser.add_argument("--silence", type=float, default=7, help="the longest, in seconds")
    parser.add_argument("--switch", type=float, default=0.005, help="how long a thread runs before it is changed")
    parser.add_argument("--tasks", action="store_true")
    parser.add_argument("--kill", action="store_true")
    options = parser.parse_args()
    options.run = f"{options.seed}.{time.time_ns()}"  # ids of its own, in a Valkey that may be filled
    return options


def main() -> int:
    """Run the storm that the command line asks for."""
    options = _options()
    sys.setswitchinterval(options.switch)
    with ExitStack() as stack:
        port = options.port
        if port is None:
            from arqonce.embedded import open_valkey  # noqa: PLC0415 - not where only the producer's packages are

            folder = Path(stack.enter_context(TemporaryDirectory()))
            port = urlsplit(stack.enter_context(open_valkey(folder)).url).port or 0
        record, faults = _run(options, port)
    told = {
        "python": sys.version.split()[0],
        "calls": sum(record.counts.values()) - record.counts["kills"],
        "counts": record.counts,
        "faults": faults,
        "worst": {name: round(seconds, 2) for name, seconds in record.worst.items()},
        "wrong": len(record.wrong),
        "first": record.wrong[:5],
    }
    print(json.dumps(told, indent=1))
    return 1 if record.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
