"""Real workers and a relay with few rights: killed, stopped, without Redis' memory; and what operators do with them."""

import json
import subprocess
import sys
from datetime import datetime, timedelta

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests import warm
from tests.arqonce.schedules import ticking
from tests.conftest import StartWorker, wait_until_async
from tests.rights import Rights

Sessions = async_sessionmaker[AsyncSession]

pytestmark = [
    pytest.mark.parametrize("rights", ["least rights"], indirect=True),
    pytest.mark.usefixtures("starts_processes"),
]

REGISTRY = f"{ticking.__name__}:REGISTRY"
RELAY = (sys.executable, "-m", "worker", "relay")


async def _slots(sessions: Sessions) -> list[datetime]:
    async with sessions() as session:
        names = await session.scalars(text("SELECT name FROM users ORDER BY name"))
        return [datetime.fromisoformat(name) for name in names]


async def _until_more(sessions: Sessions, count: int) -> None:
    before = len(await _slots(sessions))

    async def are_more() -> bool:
        return len(await _slots(sessions)) >= before + count

    await wait_until_async(are_more, 30)


async def _until_missed(sessions: Sessions) -> None:
    """Wait until slots have come that nobody promises."""

    async def are_missed() -> bool:
        async with sessions() as session:
            lag = text("SELECT now() - last_slot > interval '3 s' FROM arqonce.schedules WHERE name = 'tick'")
            return bool(await session.scalar(lag))

    await wait_until_async(are_missed, 30)


async def test_every_second_has_one_job_whoever_is_killed(
    start_worker: StartWorker, sessions: Sessions, redis: Redis, rights: Rights
) -> None:
    """Two workers and a relay promise the slots; one is killed, Redis is emptied, and at last nobody is there."""
    relay_rights = {"DATABASE_URL": rights.relay_database, "REDIS_URL": rights.relay_redis}
    processes = [start_worker(WORKER_REGISTRY=REGISTRY, WORKER_LEASE="1s") for _ in range(2)]
    processes.append(start_worker(*RELAY, WORKER_REGISTRY=REGISTRY, **relay_rights))
    await _until_more(sessions, 2)
    processes[0].kill()
    await redis.flushall()
    await _until_more(sessions, 2)
    for process in processes[1:]:
        process.kill()
    await _until_missed(sessions)

    last = start_worker(WORKER_REGISTRY=REGISTRY, WORKER_LEASE="1s")
    await _until_more(sessions, 5)
    last.stop()

    slots = await _slots(sessions)
    assert slots == [slots[0] + number * timedelta(seconds=1) for number in range(len(slots))]
    assert "Traceback" not in "".join(process.log for process in processes)


async def test_operators_see_pause_resume_and_run_schedules(
    start_worker: StartWorker, environment: dict[str, str], sessions: Sessions, rights: Rights, redis: Redis
) -> None:
    """By commands, with the rights of operators. A pause outlasts workers and Redis' memory."""
    own = environment | {"DATABASE_URL": rights.operator_database, "REDIS_URL": rights.operator_redis}
    worker = start_worker(WORKER_REGISTRY=REGISTRY)
    await _until_more(sessions, 1)

    paused = _run(own, "pause", "tick", "new-year", "--why", "moving house", "--by", "Ann")
    worker.stop()
    await redis.flushall()
    start_worker(WORKER_REGISTRY=REGISTRY)
    await wait_until_async(lambda: _is_skipped(sessions), 20)
    during = {found["name"]: found for found in json.loads(_run(own, "list", "--json"))}
    shown = _run(own, "list", "--next", "2")
    number = len(await _slots(sessions))
    extra = json.loads(_run(own | {"WORKER_REGISTRY": REGISTRY}, "run-now", "new-year", "--json"))["job_id"]
    await wait_until_async(lambda: _has_receipt(sessions, extra), 20)
    by_hand = len(await _slots(sessions)) - number
    resumed = _run(own, "resume", "tick")
    _run(own, "pause", "new-year", "--until", "2h")
    await _until_more(sessions, 1)
    after = {found["name"]: found for found in json.loads(_run(own, "list", "--json"))}

    assert (paused, resumed) == ("paused tick\npaused new-year\n", "resumed tick\n")
    assert during["tick"].items() >= {
        "when": "every 1s", "paused_by": "Ann", "paused_why": "moving house", "paused_until": None, "next": [],
        "skip_reason": "paused",
    }.items()  # fmt: skip
    assert "by Ann because: moving house" in shown
    assert (during["tick"]["last_outcome"], by_hand) == ("complete", 1)
    assert (after["tick"]["paused"], after["new-year"]["paused"]) == (False, True)
    assert after["new-year"]["when"] == "0 0 1 1 * in Asia/Kathmandu"
    assert after["new-year"]["next"][0]["local"].endswith("-01-01T00:00:00+05:45")
    assert after["new-year"]["next"][0]["utc"].endswith("-12-31T18:15:00Z")


async def _is_skipped(sessions: Sessions) -> bool:
    async with sessions() as session:
        found = (
            "SELECT skipped > 0 AND NOT EXISTS (SELECT FROM arqonce.outbox) FROM arqonce.schedules WHERE name = 'tick'"
        )
        return bool(await session.scalar(text(found)))


async def _has_receipt(sessions: Sessions, job_id: str) -> bool:
    async with sessions() as session:
        found = text("SELECT count(*) FROM arqonce.receipts WHERE job_id = :id")
        return bool(await session.scalar(found, {"id": job_id}))


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (("pause", "nothing"), 1, "no worker has a schedule nothing: see users-worker schedules list"),
        (("run-now", "nothing"), 2, "no registry here has the schedule nothing: there are none; name a registry"),
        (("pause", "tick", "--until", "soon"), 2, "or a time: 2026-06-01T12:00+02:00"),
        (("pause", "tick", "--until", "2026-06-01T12:00"), 2, "has no time zone"),
    ],
)
def test_a_wrong_command_says_what_is_right(
    environment: dict[str, str], command: tuple[str, ...], code: int, message: str
) -> None:
    """In a line, with its exit code."""
    done = _done(environment, *command)

    assert (done.returncode, message in " ".join(done.stderr.replace("│", " ").split())) == (code, True), done.stderr


def _done(environment: dict[str, str], *command: str) -> "subprocess.CompletedProcess[str]":
    return warm.run([sys.executable, "-m", "worker", "schedules", *command], environment)


def _run(environment: dict[str, str], *command: str) -> str:
    done = _done(environment, *command)
    assert done.returncode == 0, done.stderr
    return done.stdout
