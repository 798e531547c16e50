"""Queues on the page: what waits, and a pause from its preview to its end."""

import time

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.client.client import JobClient
from arqonce.connection.pauses import FOR_EVER, Paused
from arqonce.connection.presence import LiveWorker, announce
from arqonce.ledger.audit import list_acts
from arqonce.wire.keys import aside_key
from jobs import CreateUser, FindUser
from tests.arqonce.console.conftest import Browser
from tests.pauses import read_paused

Sessions = async_sessionmaker[AsyncSession]


async def _acts(sessions: Sessions) -> list[tuple[str, str, str, str | None]]:
    async with sessions() as session:
        found = await list_acts(session, since=None, limit=10)
    return [(one.who, one.act, one.target, one.why) for one in found]


async def test_a_pause_is_previewed_and_done(
    jane: Browser, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """The preview changes nothing and says whom it concerns; the act is recorded, audited, and known to workers."""
    for number in range(12):
        await client.enqueue(CreateUser(name=f"n{number}"), key=f"job-{number:02}")
    preview = await jane.get("/queues/pause?queue=arq:queue")
    before = await read_paused(redis, "arq:queue")

    done = await jane.send("/queues/pause", **preview.page.fields(), reason="a bad deploy", length="resumed")

    assert "12 jobs that wait" in preview.page.text
    assert "job-09" in preview.page.text
    assert "job-10" not in preview.page.text  # ten samples
    assert before == Paused()
    assert (done.status, "Paused arq:queue" in done.page.text) == (200, True)
    assert await read_paused(redis, "arq:queue") == Paused(FOR_EVER)
    assert await _acts(sessions) == [("jane", "queue pause", "arq:queue", "a bad deploy")]
    listed = (await jane.get("/queues")).page.text
    assert "Paused" in listed
    assert "12" in listed


async def test_a_kind_is_paused_and_resumed(jane: Browser, client: JobClient, redis: Redis, sessions: Sessions) -> None:
    """Of a kind, too; who resumes it need not say why."""
    await client.enqueue(FindUser(email="jane@example.org"))

    await jane.send("/queues/pause", queue="arq:queue", kind="find_user", reason="slow", length="1h")
    paused = await read_paused(redis, "arq:queue")
    page = await jane.get("/queue?name=arq:queue")
    resumed = await jane.send("/queues/resume", queue="arq:queue", kind="find_user", reason="")
    again = await jane.send("/queues/resume", queue="arq:queue", kind="find_user")

    assert list(paused.kinds) == ["find_user"]
    assert "jane : slow" in page.page.text
    assert (resumed.status, again.status) == (200, 409)
    assert await read_paused(redis, "arq:queue") == Paused()
    assert [act for _, act, _, _ in await _acts(sessions)] == ["queue resume", "queue pause"]


async def test_a_resumption_concerns_what_is_held(jane: Browser, redis: Redis) -> None:
    """Workers have put jobs of a paused kind aside: these are what it is about."""
    await redis.zadd(aside_key("arq:queue", "find_user"), {f"held-{number}": number for number in range(3)})

    preview = await jane.get("/queues/resume?queue=arq:queue&kind=find_user")

    assert "3 jobs that wait or are held" in preview.page.text
    assert "held-0 held-1 held-2" in preview.page.text


async def test_a_wrong_form_does_nothing(jane: Browser, sessions: Sessions) -> None:
    """What is missing, unknown, repeated or wrong is said, and nothing is done."""
    forms = [
        {"queue": "arq:queue", "length": "1h"},
        {"queue": "arq:queue", "length": "1h", "reason": "  "},
        {"queue": "arq:queue", "length": "2h", "reason": "x"},
        {"queue": "", "length": "1h", "reason": "x"},
        {"queue": "q" * 201, "length": "1h", "reason": "x"},
        {"queue": "a\u202eb", "length": "1h", "reason": "x"},
        {"queue": "arq:queue", "length": "1h", "reason": "x\0"},
        {"queue": "arq:queue", "length": "1h", "reason": "x", "who": "joe"},
    ]

    answers = [await jane.send("/queues/pause", **form) for form in forms]
    twice = await jane.ask("POST", "/queues/pause", headers=jane.origin, data=[("queue", "a"), ("queue", "b")])
    no_form = await jane.ask("POST", "/queues/pause", headers=jane.origin, json={"queue": "a"})
    too_long = await jane.send("/queues/pause", queue="arq:queue", length="1h", reason="x" * 100_000)

    assert [answer.status for answer in answers] == [400] * len(forms)
    assert (twice.status, no_form.status, too_long.status) == (400, 415, 413)
    assert await _acts(sessions) == []


async def test_a_pause_while_redis_is_away_is_recorded(jane: Browser, redis: Redis, sessions: Sessions) -> None:
    """The record is in PostgreSQL; the page says that workers do not know yet."""
    await redis.set("arqonce:pauses", "x")
    async with sessions() as session:
        assert await session.scalar(text("SELECT count(*) FROM arqonce.pauses")) == 0
    await redis.config_set("maxmemory", "1")  # every write is refused
    try:
        done = await jane.send("/queues/pause", queue="arq:queue", reason="why not", length="1h")
    finally:
        await redis.config_set("maxmemory", "0")

    async with sessions() as session:
        recorded = await session.scalar(text("SELECT count(*) FROM arqonce.pauses"))
    assert (done.status, recorded) == (200, 1)
    assert "workers do not know yet" in done.page.text


async def test_what_was_done_is_known_to_its_author(jane: Browser, rob: Browser) -> None:
    """The page of an act can be read again, by the one who did it."""
    done = await jane.ask(
        "POST",
        "/queues/pause",
        data={"queue": "arq:queue", "length": "15m", "reason": "x"},
        headers=jane.origin,
        follow=False,
    )
    where = done.headers["Location"]

    answers = [await jane.get(where), await jane.get(where), await rob.get(where, follow=False)]

    assert [answer.status for answer in answers] == [200, 200, 303]


@pytest.mark.parametrize(
    "path", ["/jobs?queue=scores", "/jobs?queue=scores&state=deferred", "/queues/pause?queue=scores"]
)
async def test_other_sorted_sets_are_not_shown(jane: Browser, redis: Redis, path: str) -> None:
    """What another program has in Redis cannot be read as a queue, by guessing the name of its key."""
    await redis.zadd("scores", {"pat@example.org": 1, "joe@example.org": 4e12})

    answer = await jane.get(path)

    assert "@example.org" not in answer.body
    assert answer.status == (404 if path.startswith("/jobs") else 200)


async def test_a_kind_is_paused_in_every_queue(jane: Browser, redis: Redis, sessions: Sessions) -> None:
    """Whoever wants charges to stop need not know in which queues they are; nor in which they were stopped."""
    await announce(redis, LiveWorker("w", "host", 1, ["arq:queue", "mail"]))
    preview = await jane.until("/queues/pause?kind=find_user", "mail")

    paused = await jane.send("/queues/pause", **preview.page.fields(), reason="slow", length="1h")
    both = [list((await read_paused(redis, queue)).kinds) for queue in ("arq:queue", "mail")]
    listed, overview = await jane.get("/queues"), await jane.get("/")
    resumed = await jane.send("/queues/resume", kind="find_user", job="a-job")
    again = await jane.send("/queues/resume", kind="find_user")
    neither = await jane.get("/queues/pause")

    assert (paused.status, resumed.status, again.status, neither.status) == (200, 200, 409, 400)
    assert both == [["find_user"]] * 2
    assert "in arq:queue, mail" in listed.page.text
    assert overview.page.text.count("has been paused for") == 1
    assert "/job?id=a-job" in {one["href"] for one in resumed.page.of("a")}  # from whose page it was resumed
    assert [await read_paused(redis, queue) for queue in ("arq:queue", "mail")] == [Paused()] * 2
    assert [(act, target) for _, act, target, _ in await _acts(sessions)] == [
        (f"queue {act}", f"find_user in {queue}") for act in ("resume", "pause") for queue in ("mail", "arq:queue")
    ]


async def test_a_queue_that_redis_alone_knows_is_found(jane: Browser, valkey_url: str) -> None:
    """A producer has misspelt the name: the list has it, and its job says where it is and why it does not run."""
    async with JobClient(valkey_url, queue="mial") as producer:
        await producer.enqueue(FindUser(email="jane@example.org"), key="lost")

    await jane.until("/queues", "mial")
    job = await jane.get("/job?id=lost")

    assert "no worker serves the queue mial" in job.page.text


async def test_that_no_worker_is_alive_comes_first_if_jobs_wait(jane: Browser, redis: Redis) -> None:
    """Before the queues that are not served for that reason; without such jobs it is not urgent."""
    idle = (await jane.get("/")).page.text
    await redis.zadd("arq:queue", {"old": (time.time() - 3600) * 1000})

    waiting = (await jane.until("/", "which no worker serves")).page.text

    assert "Soon No worker is alive" in idle
    assert "Needs attention Now No worker is alive" in waiting


async def test_queues_beyond_those_that_are_looked_at_have_pages(
    rob: Browser, redis: Redis, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The overview and the list say that there are more; a queue of which nobody knows has none."""
    monkeypatch.setattr("arqonce.console.poll.MOST_QUEUES", 1)
    promise = """INSERT INTO arqonce.outbox (job_id, job_name, queue, message, request_hash, due_at, give_at)
        SELECT n::text, 'x', 'customer' || n, '', '', now() - interval '2 min', now() - interval '2 min'
        FROM generate_series(10, 39) AS n"""
    async with sessions.begin() as session:
        await session.execute(text(promise))
    await announce(redis, LiveWorker("w", "host", 1, ["tenant1", "tenant2"]))
    await redis.zadd("tenant2", {"a": 1, "b": 2})

    overview, queues = await rob.until("/", "Of 33 queues, 1 are looked at"), await rob.get("/queues")
    other, none = await rob.get("/queue?name=tenant2"), await rob.get("/queue?name=tenant3")

    assert "/queues" in overview.body
    assert "32 more queues" in queues.page.text
    assert "/queue?name=tenant2" in queues.body
    assert (other.status, "Waiting 2" in other.page.text) == (200, True)
    assert none.status == 404
    assert (await rob.get("/queue?name=customer39")).status == 200
    assert "queues were not looked at" in (await rob.get("/jobs/find?id=1")).page.text
