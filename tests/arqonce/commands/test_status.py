"""What ``status`` says of both servers, and that it costs no more when they hold more."""

import json
import math
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.connection.presence import LiveWorker, announce
from arqonce.connection.queue_kinds import read_kinds
from arqonce.ledger.losses import note_loss
from arqonce.ledger.overview import MOST_READ
from arqonce.ledger.pauses import pause
from tests import warm
from tests.conftest import wait_until
from tests.lines import show

pytestmark = pytest.mark.usefixtures("starts_processes")

Sessions = async_sessionmaker[AsyncSession]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

_FILL = """
    INSERT INTO arqonce.outbox (job_id, job_name, queue, message, request_hash, due_at, give_at, created_at)
    SELECT 'promised-' || n, 'create_user', CASE WHEN n < 3 THEN 'arq:queue' ELSE 'low' END, '', '',
        now() + interval '1 h', now() + CASE WHEN n = 4 THEN interval '-20 s' ELSE interval '1 h' END, now()
    FROM generate_series(1, 4) AS n;
    INSERT INTO arqonce.dead_jobs (job_id, job_name, message, reason, explanation, error, attempts, died_at)
    SELECT 'dead-' || n, 'create_user', '', CASE WHEN n < 3 THEN 'unknown_job' ELSE 'invalid_payload' END, '', '', 1,
        now() - n * interval '50 min' FROM generate_series(1, 3) AS n;
    INSERT INTO arqonce.receipts (job_id, job_name, request_hash, result, failure, attempt, finished_at)
    SELECT 'done-' || n, CASE WHEN n <= 90 THEN 'create_user' ELSE 'find_user' END, '',
        CASE WHEN n > 1 THEN '{}'::jsonb END, CASE WHEN n = 1 THEN '{}'::jsonb END, 1,
        now() - CASE WHEN n <= 120 THEN interval '5 s' ELSE interval '2 min' END FROM generate_series(1, 150) AS n;
    INSERT INTO arqonce.attempts (job_id, attempt, job_name, queue, code, error, worker, started_at, failed_at, counted)
    SELECT 'failed-' || n, 1, 'create_user', 'arq:queue', 'OSError', '', 'here:1', now(), now() - n * interval '25 min',
        true FROM generate_series(1, 3) AS n;
    INSERT INTO arqonce.schedules
        (name, definition, fleet, release, zone, overlap, catch_up, paused_until, paused_by, paused_why)
    SELECT name, 1, 'arq:queue', 'r', 'UTC', 'allow', interval '0', until, 'ann', 'a fair'
    FROM (VALUES ('hourly', now()), ('nightly', timestamptz '9999-01-01 00:00Z')) AS schedules (name, until)
"""


async def _fill(sessions: Sessions, statements: str = _FILL) -> None:
    async with sessions.begin() as session:
        for statement in statements.split(";"):
            await session.execute(text(statement))


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Return a function that runs ``users-worker status``, piped."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return warm.run([sys.executable, "-m", "worker", "status", *arguments], environment)

    return run


async def test_it_answers_the_first_questions_of_an_operator(sessions: Sessions, redis: Redis, run: Run) -> None:
    """Who works, what waits, what is promised and late, what fails and dies, how fast it goes, what Redis has lost."""
    await announce(redis, LiveWorker("1", "host", 1, ["arq:queue"]))
    for number in range(5):
        await redis.set(f"arq:job:{number}", json.dumps({"t": None, "f": "find_user" if number else "create_user"}))
        await redis.zadd("arq:queue", {str(number): 1})
    await _fill(sessions)
    async with sessions.begin() as session:
        await note_loss(session, 7, given_again=0)
        noticed = await note_loss(session, 7, given_again=40)
        await pause(session, "low", "create_user", reason="the bank", who="ann", length=None)

    found = json.loads(run("--json").stdout)
    lines = dict(line.split("\t") for line in run().stdout.splitlines()[3:])
    paused = lines.pop("paused: low create_user")

    assert {key: found[key] for key in ("workers", "promised", "overdue", "dead", "dead_last_hour")} == {
        "workers": 1, "promised": 4, "overdue": 1, "dead": 3, "dead_last_hour": 1,
    }  # fmt: skip
    assert [(kind["job"], kind["waiting"]) for kind in found["kinds"]] == [("find_user", 4), ("create_user", 1)]
    assert found["done_by_job"] == [
        {"job": "create_user", "per_second": 1.5, "refused": 1},
        {"job": "find_user", "per_second": 0.5, "refused": 0},
    ]
    assert found["dead_by_reason"] == [
        {"reason": "unknown_job", "letters": 2, "last_hour": 1},
        {"reason": "invalid_payload", "letters": 1, "last_hour": 0},
    ]
    assert [(one["job"], one["reason"]) for one in found["dead_by_job"]] == [
        ("", "unknown_job"), ("create_user", "invalid_payload"),
    ]  # fmt: skip
    assert found["failed_attempts_by_code"] == [{"code": "OSError", "attempts": 2}]
    assert found["failed_attempts_by_job"] == [{"job": "create_user", "code": "OSError", "attempts": 2}]
    assert found["redis_losses"] == [{"noticed_at": noticed.isoformat(), "given_again": 40}]
    assert paused.startswith("since 20")
    assert paused.endswith("until resumed, ann: the bank")
    assert [(one["queue"], one["job"], one["reason"]) for one in found["pauses"]] == [
        ("low", "create_user", "the bank")
    ]
    assert found["paused_schedules"] == ["nightly"]
    assert lines == {
        "workers alive": "1 on 1 host",
        "paused: the schedule nightly": "until resumed, ann: a fair",
        "waiting by kind": "find_user 4, create_user 1",
        "promised": "4, 1 overdue (low 1): arq:queue 2, low 2",
        "done a second, of late": "2.0: create_user 1.5, find_user 0.5; 1 refused",
        "failed attempts in the last hour": "2: create_user OSError 2",
        "dead letters": "3: unknown_job 2, create_user invalid_payload 1; 1 in the last hour",
        "Redis was emptied, restarted or replaced": f"{noticed:%Y-%m-%d %H:%M:%S} UTC: 40 promised jobs given again",
    }


async def test_workers_in_trouble_are_named(redis: Redis, run: Run) -> None:
    """A clock once for each host, a block once for each place, and who has another database than others of its queue.

    What is not as workers write it counts as nothing.
    """
    said: list[dict[str, object]] = [
        {"clock_offset": -3600.2},
        {"clock_offset": -3599.8, "block": {"job_name": "create_user", "at": "jobs/users.py:12 run"}},
        {"clock_offset": 1e300, "block": {"at": "\x1b[2J"}},
        {"clock_offset": 2.0},
    ]
    for number, doing in enumerate(said):
        worker = LiveWorker(str(number), "there" if number < 3 else "\x1b[2J", number, ["arq:queue"])
        await announce(redis, worker)
        await show(redis, worker, doing)
    for number in range(5):
        worker = LiveWorker(f"h{number}", f"h{number}", 1, ["arq:queue", f"own{number}", f"pair{number // 2}"])
        await announce(redis, worker)
        await show(redis, worker, {"block": {"at": "x"}, "database": f"db{number % 2}" if number < 4 else ["\x1b"]})

    told = run().stderr.splitlines()
    found = json.loads(run("--json").stdout)["worker_troubles"]

    assert [line.partition(": ")[0] for line in told] == [
        "the clock of there is 1:00:00 ahead of that of Redis",
        "the clock of a host without a readable name is 0:00:02 behind that of Redis",
        "workers of the queue arq:queue (and 2 other queues) have 2 databases, such as those on h0, h1",
        "create_user has blocked the event loop of workers on there in the last two minutes, at jobs/users.py:12 run",
        "something has blocked the event loop of workers on h0, h1, h2 and 2 other hosts in the last two minutes, at x",
    ]
    assert [one["check"] for one in found] == ["clocks", "clocks", "databases", "event loops", "event loops"]


async def test_kinds_of_a_long_queue_are_estimated_from_all_of_it(redis: Redis) -> None:
    """From places at equal distances, because jobs enqueued together are of one kind; hostile ones have no name."""
    names = ["early"] * 3000 + ["late"] * 1000
    async with redis.pipeline() as pipe:
        for number, name in enumerate(names):
            pipe.set(f"arq:job:{number}", json.dumps({"t": None, "f": name}))
        pipe.mset({"arq:job:10": "no json", "arq:job:11": b'{"f": "\\ud800"', "arq:job:12": b'{"f": "a\\nb"}'})
        pipe.zadd("arq:queue", {str(number): number + 1 for number in range(len(names))})
        await pipe.execute()

    found = await read_kinds(redis, "arq:queue")

    assert (found.read, found.of, found.is_estimate) == (500, 4000, True)
    assert list(found.waiting) == ["early", "late", "other"]
    assert abs(found.waiting["late"] - 1000) <= 200
    assert found.waiting["other"] == 3 * 8


@pytest.fixture
def watching(environment: dict[str, str], redis: Redis) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Start ``status --watch`` on a terminal."""
    assert redis is not None
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "worker", "status", "--watch"]
    environment = environment | {"COLUMNS": "100", "TERM": "xterm"}
    with subprocess.Popen(command, env=environment, stdout=theirs, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        yield process, ours
        process.kill()
    os.close(ours)


def test_it_can_be_watched_until_ctrl_c(watching: tuple["subprocess.Popen[bytes]", int]) -> None:
    """It is shown again, and its end is no failure."""
    process, terminal = watching
    os.set_blocking(terminal, False)
    shown = b""

    def is_shown_twice() -> bool:
        nonlocal shown
        with suppress(OSError):
            shown += os.read(terminal, 65536)
        return shown.count(b"workers alive: 0 on 0 hosts") >= 2

    wait_until(is_shown_twice, 60)
    process.send_signal(signal.SIGINT)

    assert (process.wait(10), process.stderr and process.stderr.read()) == (0, b"")


def test_each_look_of_a_script_is_one_line(environment: dict[str, str], redis: Redis) -> None:
    """With ``--json`` and ``--watch``."""
    assert redis is not None
    command = [sys.executable, "-m", "worker", "status", "--watch", "--json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)

    assert [one["waiting"] for one in found] == [0, 0]
    assert process.returncode == 0


async def test_it_is_as_fast_with_much_as_with_little(sessions: Sessions, redis: Redis, run: Run) -> None:
    """Every figure is bounded."""
    many = """
        INSERT INTO arqonce.receipts (job_id, job_name, request_hash, result, attempt, finished_at)
        SELECT 'r' || n, 'create_user', '', '{}', 1, now() - n * interval '1 ms' FROM generate_series(1, 60000) AS n;
        INSERT INTO arqonce.dead_jobs (job_id, job_name, message, reason, explanation, error, attempts, died_at)
        SELECT 'd' || n, 'x', '', 'unknown_job', '', '', 1, now() FROM generate_series(1, 10500) AS n
    """
    await redis.zadd("arq:queue", {str(number): number for number in range(1, 50_000)})
    filled = time.monotonic()
    await _fill(sessions, many)

    took, found = math.inf, dict[str, Any]()
    for _ in range(3):  # on a busy machine one of them finds a quiet moment
        if took >= 5 or not {"dead", "done_per_second"} <= found.keys():
            started = time.monotonic()
            found = json.loads(run("--json").stdout)
            took = time.monotonic() - started

    assert took < 5  # of which the process takes most; usually it is under one
    assert (found["dead"], found["dead_by_reason"][0]["letters"]) == (MOST_READ, MOST_READ)
    seconds = MOST_READ / 1000 + time.monotonic() - filled  # since the oldest of those that are read
    assert 0.9 * MOST_READ / seconds < found["done_per_second"] < 1000 + 300
