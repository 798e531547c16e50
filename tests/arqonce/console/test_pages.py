"""Every page with hostile data: what browsers make of it has nothing in it that is not ours."""

import json
import time
import unicodedata
from collections.abc import Mapping
from urllib.parse import quote

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.connection.presence import WORKERS_KEY, LiveWorker
from arqonce.console.application import ROUTES
from arqonce.console.pages import NAVIGATION
from tests.arqonce.console.conftest import Browser

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&\u202egnp.\u202c\u200b\u2066\ufeff\x1b[31m"
"""PostgreSQL cannot store a NUL; ``test_shown`` has it."""

NAME = "<script>alert(1)</script>\"'&{{7*7}}"
"""A name that queues and kinds may have."""

_ROWS = """
    INSERT INTO arqonce.pauses (queue, job_name, reason, paused_by, paused_at)
        VALUES (:name, :name, :long, :text, now() - interval '2 h');
    INSERT INTO arqonce.audit (who, act, target, number, why) VALUES (:text, :text, :long, 1, :long);
    INSERT INTO arqonce.dead_jobs (job_id, job_name, message, reason, explanation, error, attempts, queue)
        VALUES (:name, :name, 'x', :text, :long, :long, 1, :name);
    INSERT INTO arqonce.receipts (job_id, job_name, request_hash, result, attempt)
        VALUES ('done ' || :text, :text, 'x', '{}', 1);
    INSERT INTO arqonce.attempts
        (job_id, attempt, job_name, queue, code, error, worker, started_at, failed_at, counted)
        VALUES (:text, 1, :text, :name, :text, :long, :text, now(), now(), true);
    INSERT INTO arqonce.redis_losses (epoch) VALUES (7);
    INSERT INTO arqonce.outbox (job_id, job_name, queue, message, request_hash, due_at, give_at)
        VALUES ('hostile', :name, :name, convert_to(:message, 'utf-8'), 'x', now(), now());
    INSERT INTO arqonce.attempts
        (job_id, attempt, job_name, queue, code, error, worker, started_at, failed_at, counted)
        VALUES ('hostile', 1, :text, :name, :text, :long, :text, now(), now(), true);
    INSERT INTO arqonce.schedules
        (name, definition, fleet, release, job_name, cron, zone, queue, overlap, catch_up, next_slot, last_job_id,
         paused_until, paused_by, paused_why)
        VALUES (:text, 1, :name, 'x', :text, :text, :text, :name, 'skip', '1 h', now() + interval '1 d', :text,
         now() + interval '1 h', :text, :long)
"""

_MESSAGE = json.dumps({"t": None, "f": NAME, "a": [HOSTILE], "k": {HOSTILE: HOSTILE}, "et": 0})

QUERIES: Mapping[str, str] = {
    "/queue": f"name={quote(NAME)}",
    "/queues/pause": f"queue={quote(NAME)}&kind={quote(NAME)}",
    "/queues/resume": f"queue={quote(NAME)}",
    "/jobs": f"queue={quote(NAME)}&state=waiting",
    "/jobs/find": "id=%3Cscript",
    "/job": "id=hostile",
    "/job/abort": "id=hostile",
    "/dead/letters": f"code={quote(HOSTILE)}",
    "/dead/retry": f"code={quote(HOSTILE)}",
    "/dead/discard": f"code={quote(HOSTILE)}",
    "/schedules/pause": f"name={quote(HOSTILE)}",
    "/schedules/resume": f"name={quote(HOSTILE)}",
    "/schedules/run": f"name={quote(HOSTILE)}",
    "/worker": "id=hostile",
    "/workers/drain": "id=hostile",
    "/workers/undrain": "id=hostile",
    "/audit": f"who={quote(HOSTILE)}",
}
"""For pages that need one. A page that is added gets its own here."""

_OTHERS = {"/live", "/done/{number}", "/dead/act/{number}"}
"""What is no page, and those that only an act leads to."""

_STATUSES = {"/schedules/run": 409}
"""The console has not the code of the hostile schedule."""

PAGES = [route.path for route in ROUTES if route.method == "GET" and route.path not in _OTHERS]


@pytest.fixture
async def hostile(redis: Redis, sessions: async_sessionmaker[AsyncSession]) -> None:
    """Make the world hostile."""
    await write_hostile(redis, sessions)


async def write_hostile(redis: Redis, sessions: async_sessionmaker[AsyncSession]) -> None:
    """Write hostile text into whatever takes it."""
    worker = LiveWorker("hostile", HOSTILE, 1, [NAME])
    job = {"id": HOSTILE + "x" * 100_000, "job_name": HOSTILE, "since": time.time() - 5}
    doing = {"state": "working", "version": HOSTILE, "kinds": [HOSTILE, NAME], "slots": 3, "running": 1, "jobs": [job]}
    await redis.zadd(WORKERS_KEY, {worker.member: time.time() * 1000 + 60_000})
    await redis.set("arqonce:worker:hostile", json.dumps(doing | {"rss": 1, "started": time.time()}), px=45_000)
    await redis.zadd(NAME, {HOSTILE: time.time() * 1000 - 90_000, NAME: time.time() * 1000 + 9e6})
    await redis.set(f"arq:job:{HOSTILE}", json.dumps({"f": NAME}))
    values = {"name": NAME, "text": HOSTILE, "long": HOSTILE + "y" * 1_000_000, "message": _MESSAGE}
    async with sessions.begin() as session:
        for statement in _ROWS.split(";"):
            used = {name: value for name, value in values.items() if f":{name}" in statement}
            await session.execute(text(statement), used)


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("path", PAGES)
async def test_a_hostile_world_does_nothing(jane: Browser, path: str) -> None:
    """No element, attribute or character comes from outside, and no page is large."""
    answer = await jane.get(f"{path}?{QUERIES[path]}" if path in QUERIES else path)

    page = answer.page
    assert answer.status == _STATUSES.get(path, 200), page.text
    assert len(answer.body) < 200_000
    assert [one.get("src", "").partition("?")[0] for one in page.of("script")] == ["/static/console.js"]  # type: ignore[union-attr]
    assert page.of("img") == []
    attributes = [(tag, name, value or "") for tag, given in page.tags for name, value in given.items()]
    assert [one for one in attributes if one[1].startswith("on") or one[1] == "style"] == []
    assert [
        one for one in attributes if one[1] in {"href", "action", "src"} and not one[2].startswith(("/", "#"))
    ] == []
    seen = [*page.words, *(value for _, name, value in attributes if name not in {"value", "data-copy", "href"})]
    assert {one for one in "".join(seen) if unicodedata.category(one) in {"Cc", "Cf"}} - {"\n"} == set()


@pytest.mark.parametrize("path", PAGES)
async def test_a_page_can_be_used_by_everybody(jane: Browser, hostile: None, path: str) -> None:
    """One heading, landmarks, a label for each field, a caption for each table, no id twice."""
    assert hostile is None
    page = (await jane.get(f"{path}?{QUERIES[path]}" if path in QUERIES else path)).page

    labelled = {one["for"] for one in page.of("label")}
    fields = [one for tag in ("input", "select", "textarea") for one in page.of(tag) if one.get("type") != "hidden"]
    ids = [one["id"] for _, one in page.tags if "id" in one]
    assert len(page.of("h1")) == 1
    assert (len(page.of("main")), page.of("html")) == (1, [{"lang": "en"}])
    assert "Pages" in {one.get("aria-label") for one in page.of("nav")}
    assert all("aria-label" in one for one in page.of("nav"))
    assert [one for one in fields if one.get("id") not in labelled and "aria-label" not in one] == []
    assert len(page.of("caption")) == len(page.of("table"))
    assert all("scope" in one for one in page.of("th"))
    assert len(ids) == len(set(ids))
    described = [one["aria-labelledby"] for _, one in page.tags if "aria-labelledby" in one]
    assert set(described) <= set(ids)


@pytest.mark.parametrize("path", [entry.path for entry in NAVIGATION])
async def test_every_page_says_where_it_is(rob: Browser, path: str) -> None:
    """The navigation marks the page, on empty servers too; a reader is offered no act."""
    page = (await rob.get(path)).page

    current = [one["href"] for one in page.of("a") if one.get("aria-current") == "page"]
    assert current[:1] == [path]  # others are of the page itself
    assert [one for one in page.of("form") if one.get("method") == "post" and one["action"] != "/log-out"] == []


async def test_what_is_not_as_workers_write_it_is_nothing(jane: Browser, redis: Redis) -> None:
    """Whoever may write into Redis cannot make a page fail."""
    for number, said in enumerate(
        ['{"jobs": 1}', "[]", "x", '{"started": 1e300, "slots": "a"}', '{"kinds": {"a": 1}}']
    ):
        worker = LiveWorker(f"w{number}", "host", number, ["arq:queue"])
        await redis.zadd(WORKERS_KEY, {worker.member: time.time() * 1000 + 60_000})
        await redis.set(f"arqonce:worker:w{number}", said, px=45_000)

    await jane.until("/workers", "host:4")
    answers = [await jane.get(path) for path in ("/", "/queues", "/queue?name=arq:queue", "/workers", "/worker?id=w3")]

    assert [answer.status for answer in answers] == [200] * 5
    assert answers[3].page.text.count("Silent") == 5


async def test_the_script_is_told_that_nothing_has_changed(jane: Browser) -> None:
    """A page that is the same is not sent again."""
    first = await jane.get("/audit")

    again = await jane.get("/audit", headers={"If-None-Match": first.headers["ETag"]})

    assert (first.status, again.status, again.body) == (200, 304, "")
