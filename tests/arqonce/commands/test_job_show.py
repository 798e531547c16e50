"""What ``job show`` tells of a job, wherever it is: each line of the story once."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.connection.presence import LiveWorker, announce
from arqonce.ledger.pauses import pause
from arqonce.ledger.schedule_control import UNTIL_RESUMED, pause_schedules
from arqonce.outbox import enqueue_in
from arqonce.wire.keys import PAUSED_MS, now_ms
from tests import warm
from tests.arqonce.commands.story_jobs import Fail, Lead, Refuse
from tests.conftest import StartWorker, wait_until_async
from tests.lines import show as show_worker
from tests.rights import Rights

pytestmark = pytest.mark.usefixtures("starts_processes")

Sessions = async_sessionmaker[AsyncSession]
Show = Callable[..., "subprocess.CompletedProcess[str]"]

REGISTRY = {"WORKER_REGISTRY": "tests.arqonce.commands.story_jobs:REGISTRY"}
SECRET = "jane@example.org"  # noqa: S105 - a person's data


@pytest.fixture
def show(environment: dict[str, str], rights: Rights) -> Show:
    """Return a function that runs ``job show`` with an operator's rights."""
    own = {"DATABASE_URL": rights.operator_database, "REDIS_URL": rights.operator_redis} | REGISTRY

    def show(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "worker", "job", "show", *arguments]
        return warm.run(command, environment | own | settings)

    return show


def _story(show: Show, *arguments: str) -> dict[str, Any]:
    done = show(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _events(story: dict[str, Any]) -> list[str]:
    return [event["event"] for event in story["events"]]


def _text(story: dict[str, Any], name: str) -> str:
    (event,) = [event for event in story["events"] if event["event"] == name]
    return str(event["text"])


@pytest.mark.parametrize("rights", ["least rights"], indirect=True)
async def test_a_whole_story_is_told_with_an_operators_rights(
    start_worker: StartWorker, sessions: Sessions, show: Show
) -> None:
    """Promised, given, tried twice, dead; a refusal; a parent and its follow-ups. Data is told only if asked for."""
    async with sessions.begin() as session:
        await enqueue_in(session, Fail(email=SECRET), key="fails")
        await enqueue_in(session, Refuse(email=SECRET), key="refused")
        await enqueue_in(session, Lead(), key="leads")
    worker = start_worker(**REGISTRY)

    async def are_over() -> bool:
        async with sessions() as session:
            over = "SELECT (SELECT count(*) FROM arqonce.receipts) + (SELECT count(*) FROM arqonce.dead_jobs)"
            return bool(await session.scalar(text(over)) == 5)

    await wait_until_async(are_over, 30)
    worker.stop()

    dead, refused, led = (_story(show, job_id) for job_id in ("fails", "refused", "leads"))
    plain = show("fails")
    data = json.loads(show("fails", "--data", "--json").stdout)
    denied = json.loads(show("refused", "--data", "--json").stdout)

    assert dead["state"] == "dead"
    assert _events(dead) == ["enqueued", "attempt_failed", "attempt_failed", "died", "answered"]
    assert "attempt 1 failed on " in dead["events"][1]["text"]
    assert "; to run again at " in dead["events"][1]["text"]
    assert "LookupError; it was the last one" in dead["events"][2]["text"]
    assert "users-worker dead retry fails" in _text(dead, "died")
    assert (refused["state"], _text(refused, "refused")) == ("refused", "refused in attempt 1: taken")
    assert led["state"] == "succeeded"
    follow_ups = {event["job_name"]: event for event in led["events"] if event["event"] == "follow_up"}
    assert {name: event["state"] for name, event in follow_ups.items()} == {"fail": "dead", "refuse": "refused"}
    follow_up = _story(show, follow_ups["fail"]["job_id"])
    assert _text(follow_up, "parent") == "it is a follow-up of leads"
    assert plain.stdout.startswith("fail fails: dead\n")
    assert "LookupError at " in plain.stdout
    assert SECRET not in plain.stdout + json.dumps([dead, refused, led])
    assert data["data"]["payload"] == {"email": SECRET}
    assert denied["not_seen"] == ["the result: this role may not look"]


async def test_each_place_in_redis_is_told(redis: Redis, sessions: Sessions, show: Show) -> None:
    """Waiting and how many are before it, deferred, running, left by its worker, without its message, in no queue."""
    now = now_ms()
    message = json.dumps(
        {"t": None, "f": "fail", "a": [], "k": {}, "et": now - 5000, "xt": now + 60_000, "p": "parent"}
    )
    await redis.mset(
        {f"arq:job:{name}": message for name in ("waiting", "deferred", "running", "left", "stray", "arqs")}
    )
    scores = {"first": 1, "waiting": now - 1000, "deferred": now + 60_000, "running": now + 9000, "left": now - 10}
    await redis.zadd("arq:queue", scores | {"gone": now - 1, "arqs": now - 500})
    await redis.zadd("arq:queue:leases", {"running": now + 9000, "left": now - 10})
    await redis.mset({"arq:in-progress:running": "owner", "arq:in-progress:arqs": "1", "arq:retry:waiting": "2"})
    await redis.zadd("arq:abort", {"waiting": now})
    async with sessions.begin() as session:
        await session.execute(
            text("""
            INSERT INTO arqonce.attempts
                (job_id, attempt, job_name, queue, code, error, worker, started_at, failed_at, retry_at, counted)
            VALUES ('waiting', 2, 'fail', 'arq:queue', 'E', 'E at x', 'here:1', now(), now(), now(), false)
        """)
        )

    names = ("waiting", "deferred", "running", "left", "stray", "gone", "arqs")
    told = {name: _story(show, name) for name in names}

    waiting = told["waiting"]
    assert {name: story["state"] for name, story in told.items()} == {
        "waiting": "waiting", "deferred": "deferred", "running": "running", "left": "waiting", "stray": "unknown",
        "gone": "waiting", "arqs": "running",
    }  # fmt: skip
    assert _events(waiting) == [
        "enqueued", "abort_asked", "attempt_failed", "expires", "parent", "no_record", "waiting", "unserved",
        "attempts",
    ]  # fmt: skip
    assert _text(waiting, "waiting").endswith(", 1 before it")
    assert _text(waiting, "unserved").startswith("no worker serves the queue arq:queue: name the queue in")
    assert "E; it does not count; to run again at" in _text(waiting, "attempt_failed")
    assert _text(waiting, "no_record").startswith("of attempt 1 there is no record")
    assert _text(told["deferred"], "deferred").startswith("deferred in arq:queue until ")
    assert "its worker's claim holds until" in _text(told["running"], "running")
    assert "its worker has died" in _text(told["left"], "left")
    assert "none of these queues has it: arq:queue" in _text(told["stray"], "not_queued")
    assert "Redis has lost its message" in _text(told["gone"], "no_message")
    assert "arq's own class" in _text(told["arqs"], "running")


async def test_pauses_limits_and_the_worker_that_runs_it_are_told(redis: Redis, sessions: Sessions, show: Show) -> None:
    """A job that a pause or a limit holds looks deferred for thousands of years in Redis."""
    now = now_ms()
    message = json.dumps({"t": None, "f": "fail", "a": [], "k": {}, "et": now})
    await redis.mset({f"arq:job:{name}": message for name in ("held", "parked", "running", "waiting")})
    scores = {"held": PAUSED_MS + now, "parked": 2 * PAUSED_MS + now, "running": now + 9000, "waiting": now}
    await redis.zadd("arq:queue", scores)
    await redis.zadd("arq:queue:leases", {"running": now + 9000})
    await redis.set("arq:in-progress:running", "owner")
    worker = LiveWorker("1", "host", 7, ["arq:queue"])
    await announce(redis, worker)
    await show_worker(redis, worker, {"jobs": [{"id": "running", "job_name": "fail", "since": 1_700_000_000}]})
    async with sessions.begin() as session:
        await pause(session, "arq:queue", "fail", reason="the bank", who="ann", length=None)
        await pause(session, "arq:queue", "lead", reason="other", who="ann", length=None)
        await pause(session, "later", "fail", reason="the bank", who="ann", length=None)
        promised = await enqueue_in(session, Fail(email=SECRET), queue="later")

    names = ("held", "parked", "running", "waiting", promised.job_id)
    held, parked, running, waiting, not_given = (_story(show, name) for name in names)

    assert [story["state"] for story in (held, parked, running)] == ["waiting", "waiting", "running"]
    assert "for the end of its kind's pause, due since 20" in _text(held, "held")
    assert _text(held, "paused").endswith("until it is resumed, by ann: the bank")
    assert "for a permit of a limit" in _text(parked, "parked")
    assert "running on host:7 since 2023-11-14 22:13:20 UTC" in _text(running, "running")
    assert _events(not_given) == ["promised", "not_given", "unserved", "paused"]
    assert "paused" not in _events(running)
    assert "paused" in _events(waiting)


async def test_promises_and_what_belongs_to_them_are_told(redis: Redis, sessions: Sessions, show: Show) -> None:
    """Due later, not given yet; given again and again; of a schedule; unique for a time."""
    async with sessions.begin() as session:
        later = await enqueue_in(session, Fail(email=SECRET), delay=timedelta(hours=1), unique_for=timedelta(hours=2))
        slot = await enqueue_in(session, Lead(), key="schedule:nightly:2026-01-02T03:00:00Z", queue="low")
        await session.execute(
            text("""
            UPDATE arqonce.outbox SET dispatched_at = now(), dispatches = 3 WHERE queue = 'low';
        """)
        )
    await redis.set("arq:job:" + slot.job_id, '{"f": "lead", "et": 0, "xt": 1}')

    promised, given = _story(show, later.job_id), _story(show, slot.job_id)

    assert (promised["state"], _events(promised)) == ("promised", ["promised", "not_given", "unique"])
    assert "for the queue arq:queue, due 2" in _text(promised, "promised")
    assert "3 times in this epoch" in _text(given, "given")
    assert _text(given, "slot") == "it is the slot 2026-01-02T03:00:00Z of the schedule nightly"
    assert "paused" not in _events(given)


@pytest.mark.parametrize(
    ("until", "told"),
    [
        (timedelta(hours=-1), None),  # it is over, and stays on record
        (timedelta(days=4000), "its schedule is paused until 20"),
        (UNTIL_RESUMED, "its schedule is paused until it is resumed"),
    ],
)
async def test_a_pause_of_a_slots_schedule_is_told_while_it_lasts(
    sessions: Sessions, show: Show, until: datetime | timedelta, told: str | None
) -> None:
    """And that it ends when somebody ends it, not in the year 9999."""
    async with sessions.begin() as session:
        slot = await enqueue_in(session, Lead(), key="schedule:nightly:2026-01-02T03:00:00Z")
        await session.execute(
            text("""
            INSERT INTO arqonce.schedules (name, definition, fleet, release, cron, zone, overlap, catch_up)
            VALUES ('nightly', 1, 'f', 'r', '0 3 * * *', 'UTC', 'skip', '0');
        """)
        )
        await pause_schedules(session, ["nightly"], until=until, by="jane", why=None)

    events = [event["text"] for event in _story(show, slot.job_id)["events"] if event["event"] == "schedule_paused"]

    assert [text[: len(told or "")] for text in events] == ([] if told is None else [told])


async def test_an_answer_that_is_left_alone_is_told(redis: Redis, show: Show) -> None:
    """Of a read-only job, or of one whose receipt is gone."""
    answer = {"t": 1, "f": "find_user", "a": [], "k": {}, "et": 1, "st": 1, "ft": 1_700_000_000_000, "q": "arq:queue"}
    await redis.set("arq:result:good", json.dumps(answer | {"s": True, "r": {"email": SECRET}}))
    await redis.set("arq:result:bad", json.dumps(answer | {"s": False, "r": {"type": "taken", "message": SECRET}}))
    await redis.set("arq:result:odd", b"\x80pickle")

    good, bad, odd = (_story(show, name) for name in ("good", "bad", "odd"))

    assert (good["state"], good["job_name"], good["events"][0]["at"]) == (
        "succeeded", "find_user", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC).isoformat(),
    )  # fmt: skip
    assert (bad["state"], _text(bad, "answered")) == ("failed", "its result, which is still in Redis: failed: taken")
    assert "no JSON of ours" in _text(odd, "answered")
    assert SECRET not in json.dumps([good, bad])


async def test_what_is_nowhere_is_explained(redis: Redis, sessions: Sessions, show: Show) -> None:
    """With exit code 1; a wrong id is 2; a server that cannot be asked is 4, and the other one answers."""
    await redis.set("arq:job:half", '{"f": "fail", "et": 1}')
    assert sessions is not None

    nowhere, wrong = show("nowhere"), show("two words")
    half = show("half", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    none = show("half", REDIS_URL="redis://127.0.0.1:1")

    assert (nowhere.returncode, nowhere.stdout.splitlines()[0]) == (1, "a job nowhere: unknown")
    assert "no server has a job with this id" in nowhere.stdout
    assert (wrong.returncode, "printable ASCII" in wrong.stderr) == (2, True)
    assert (half.returncode, "fail half" in half.stdout) == (4, True)
    assert "PostgreSQL at 127.0.0.1:1/none cannot be reached" in half.stderr
    assert (none.returncode, "Redis at 127.0.0.1:1" in none.stderr) == (4, True)
