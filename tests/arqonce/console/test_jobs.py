"""Jobs on the page: lists by state, one job's story, its data behind a click, and an abort."""

import base64
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.client.client import JobClient
from arqonce.connection.presence import LiveWorker, announce
from arqonce.console.pages.job import LONGEST_DATA, indented
from arqonce.console.pages.jobs import State
from arqonce.control.queues import Target, pause
from arqonce.ledger.audit import list_acts
from arqonce.ledger.tables import DeadJob, JobReceipt, PromisedJob
from arqonce.wire.keys import PARKED_MS, PAUSED_MS
from jobs import CreateUser
from tests.arqonce.console.conftest import PAT, Browser, browsing

Sessions = async_sessionmaker[AsyncSession]

_BEGIN = datetime(2026, 1, 1, 12, tzinfo=UTC)
_MESSAGE = json.dumps({"t": 1, "f": "create_user", "a": [], "k": {"name": "Secretly Jane"}, "et": 1, "h": ""}).encode()


@pytest.fixture
async def everywhere(sessions: Sessions, redis: Redis, client: JobClient) -> None:
    """Put one job into each state, each with an id that is the state's name."""
    await client.enqueue(CreateUser(name="Secretly Jane"), key="waiting")
    await client.enqueue(CreateUser(name="Secretly Jane"), key="deferred", delay=timedelta(hours=1))
    for job_id, aside in (("held", PAUSED_MS), ("parked", PARKED_MS)):
        await redis.zadd("arq:queue", {job_id: aside + 1_700_000_000_000})
    await redis.zadd("arq:queue:leases", {"running": 4e12})
    receipt = {"job_name": "create_user", "request_hash": b"", "attempt": 1, "finished_at": _BEGIN}
    promise = {
        "job_name": "create_user",
        "queue": "arq:queue",
        "request_hash": b"",
        "due_at": _BEGIN,
        "give_at": _BEGIN,
    }
    async with sessions.begin() as session:
        await session.execute(insert(JobReceipt).values(job_id="done", result={"name": "Secretly Jane"}, **receipt))
        await session.execute(
            insert(JobReceipt).values(job_id="refused", failure={"type": "taken", "message": "by Jane"}, **receipt)
        )
        await session.execute(insert(PromisedJob).values(job_id="promised", message=_MESSAGE, **promise))
        await session.execute(insert(DeadJob).values(job_id="dead", **_letter("OddError")))


def _letter(reason: str) -> dict[str, object]:
    return {
        "job_name": "create_user", "message": _MESSAGE, "reason": reason, "explanation": "of Secretly Jane",
        "error": "it broke", "attempts": 3, "queue": "arq:queue",
    }  # fmt: skip


def _ids(browser_text: str) -> list[str]:
    return re.findall(r'href="/job\?id=([^"]+)"', browser_text)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("state", State)
async def test_each_list_has_the_jobs_of_its_state(rob: Browser, state: State) -> None:
    """And nothing of what is in them."""
    answer = await rob.get(f"/jobs?state={state}")

    assert (answer.status, _ids(answer.body)) == (200, [state.value])
    assert "Jane" not in answer.body


async def test_lists_have_pages(rob: Browser, sessions: Sessions) -> None:
    """Each job is on one of them, and the last page has no next one."""
    rows = [
        {
            "job_id": f"{at:03}", "job_name": "create_user", "request_hash": b"", "attempt": 1, "result": {},
            "finished_at": _BEGIN + timedelta(seconds=at // 3),
        }
        for at in range(120)
    ]  # fmt: skip
    async with sessions.begin() as session:
        await session.execute(insert(JobReceipt), rows)

    path: str | None = "/jobs?state=done"
    ids, pages = list[str](), 0
    while path is not None:
        answer = await rob.get(path)
        ids, pages = [*ids, *_ids(answer.body)], pages + 1
        following = [one["href"] for one in answer.page.of("a") if one.get("rel") == "next"]
        path = following[0] if following else None
    earlier = _ids((await rob.get("/jobs?state=done&before=2026-01-01T12:00:00")).body)

    assert (sorted(ids), pages) == ([f"{at:03}" for at in range(120)], 3)
    assert sorted(earlier) == ["000", "001", "002"]


async def test_many_jobs_with_the_same_time_are_not_passed_over_one_by_one(
    rob: Browser, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers would read them all for each page, and whoever writes an address could ask for any of them."""
    monkeypatch.setattr("arqonce.console.places._MOST_BEHIND", 60)
    rows = [{"job_id": f"{at:03}", "finished_at": _BEGIN} for at in range(120)]
    common = {"job_name": "create_user", "request_hash": b"", "attempt": 1, "result": {}}
    async with sessions.begin() as session:
        await session.execute(insert(JobReceipt), [common | row for row in rows])

    first = await rob.get("/jobs?state=done")
    (following,) = [str(one["href"]) for one in first.page.of("a") if one.get("rel") == "next"]
    second = await rob.get(following)
    forged = await rob.get(f"/jobs?state=done&after={_place(json.dumps([_BEGIN.isoformat(), 61]))}")

    assert [one for one in second.page.of("a") if one.get("rel") == "next"] == []
    assert (len(_ids(second.body)), "too many to be listed" in second.page.text) == (50, True)
    assert ("too many to be listed" in first.page.text, forged.status) == (False, 400)


def _place(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("state=sleeping", "state"),
        ("kind=a%0ab", "kind"),
        ("state=done&before=yesterday", "before"),
        ("after=!", "after"),
        (f"after={'A' * 500}", "after"),
        (f"after={_place('[1]')}", "after"),
        (f"after={_place('[null, 0]')}", "after"),
        (f"after={_place('[1, -1]')}", "after"),
        (f"state=done&after={_place('[1e400, 0]')}", "after"),
        (f"state=done&after={_place('[5, 0]')}", "after"),
        ("page=2", "page"),
        ("kind=a&kind=b", "kind is"),
    ],
)
async def test_what_is_wrong_with_an_address_is_said(rob: Browser, query: str, says: str) -> None:
    """With the name of the parameter."""
    answer = await rob.get(f"/jobs?{query}")

    assert (answer.status, says in answer.page.text) == (400, True)


async def test_a_job_is_found_by_its_id(rob: Browser, client: JobClient) -> None:
    """Which is its key, if its producer chose one."""
    await client.enqueue(CreateUser(name="n"), key="signup-42")

    found = await rob.get("/jobs/find?id=signup-42")
    unknown = await rob.get("/jobs/find?id=none")
    impossible = await rob.get("/jobs/find?id=no%20id")

    assert "Waiting" in found.page.text
    assert "No server has it" in unknown.page.text
    assert (found.status, unknown.status, impossible.status) == (200, 200, 400)


async def test_jobs_are_found_by_the_beginning_of_their_ids(
    rob: Browser, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """In every table by an index; of the jobs in Redis among those that are due first, and the page says so."""
    common = {"job_name": "create_user", "request_hash": b""}
    async with sessions.begin() as session:
        await session.execute(insert(JobReceipt).values(job_id="signup-1", result={}, attempt=1, **common))
        await session.execute(insert(DeadJob).values(job_id="signup-2", **_letter("OddError")))
        await session.execute(insert(DeadJob).values(job_id="Signup-2", **_letter("OddError")))
    await client.enqueue(CreateUser(name="n"), key="signup-3")
    await redis.zadd("arq:queue", {"signup-<b>": 4e12, "\n": 4e12})

    found = await rob.get("/jobs/find?id=signup-")
    one = await rob.get("/jobs/find?id=signup-2", follow=False)
    await redis.zadd("arq:queue", {f"other-{number}": number for number in range(3001)})
    part = await rob.get("/jobs/find?id=signup-")

    assert _ids(found.body) == ["signup-1", "signup-2", "signup-3", "signup-%3Cb%3E"]
    assert "all were looked at" in found.page.text
    assert (one.status, one.headers["Location"]) == (303, "/job?id=signup-2")
    assert _ids(part.body)[:2] == ["signup-1", "signup-2"]
    assert "the first 3,000 jobs were looked at" in part.page.text


@pytest.mark.parametrize(
    ("before", "field"),
    [
        ("2026-06-01T12:00", "2026-06-01T12:00"),
        ("2026-06-01T12:00:30Z", "2026-06-01T12:00:30"),
        ("2026-06-01T12:00%2B02:00", "2026-06-01T10:00"),
    ],
)
async def test_the_form_keeps_the_time_that_was_asked_for(rob: Browser, before: str, field: str) -> None:
    """A field for times takes no zone: it is in UTC, and says so."""
    page = (await rob.get(f"/jobs?state=done&before={before}")).page

    assert [one["value"] for one in page.of("input") if one.get("name") == "before"] == [field]


@pytest.mark.usefixtures("everywhere")
async def test_a_story_has_no_data_of_people(rob: Browser) -> None:
    """Neither payload, nor result, nor texts that are not ours; and a reader cannot ask for them."""
    for job_id in ("waiting", "promised", "done", "refused", "dead"):
        answer = await rob.get(f"/job?id={job_id}")
        assert (answer.status, "Jane" in answer.body) == (200, False), job_id
    denied = await rob.send("/job/data", id="done")

    assert (denied.status, "Jane" in denied.body) == (403, False)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("job_id", ["waiting", "promised", "done", "dead"])
async def test_data_is_shown_to_those_who_may_and_the_audit_knows(url: str, sessions: Sessions, job_id: str) -> None:
    """By a form alone: no address shows it."""
    async with browsing(url, PAT) as pat:
        before = await pat.get(f"/job?id={job_id}")
        by_address = await pat.get(f"/job/data?id={job_id}")
        shown = await pat.send("/job/data", **before.page.fields())
    async with sessions() as session:
        acts = [(one.who, one.act, one.target) for one in await list_acts(session, since=None, limit=10)]

    assert ("Jane" in before.body, by_address.status) == (False, 405)
    assert "Secretly Jane" in shown.page.text
    assert acts == [("pat", "job data", job_id)]


def test_of_data_that_is_long_when_indented_the_beginning_is_shown() -> None:
    """Lists inside each other: a payload of 900 KB took five seconds and half a GB."""
    steps = 0

    class Nested(list[object]):
        def __iter__(self) -> Iterator[object]:
            nonlocal steps
            steps += 1
            return super().__iter__()

    deep = Nested()
    for _ in range(180):
        deep = Nested([deep])

    title, text = indented("Payload", [deep] * 1000)

    assert (title, len(text)) == ("Payload, its first 100,000 characters", LONGEST_DATA)
    assert steps < 1000
    assert indented("Result", {"é": [1]}) == ("Result", '{\n  "é": [\n    1\n  ]\n}')


async def test_the_text_of_a_plain_failure_is_the_handler_s(rob: Browser, sessions: Sessions) -> None:
    """A handler may refuse a job with the class of all failures: its text may name a person."""
    failure = {"type": "job_failed", "message": "Secretly Jane is blocked"}
    row = {"job_id": "plain", "job_name": "create_user", "request_hash": b"", "attempt": 1, "failure": failure}
    async with sessions.begin() as session:
        await session.execute(insert(JobReceipt).values(row))
        await session.execute(insert(DeadJob).values(job_id="dead", **_letter("job_failed")))

    pages = [await rob.get(path) for path in ("/job?id=plain", "/job?id=dead", "/dead/letters?code=job_failed")]

    assert [("job_failed" in answer.body, "Jane" in answer.body) for answer in pages] == [(True, False)] * 3


async def test_an_abort_is_previewed_done_and_audited(
    jane: Browser, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """The preview changes nothing; workers find the request; a job that has ended cannot be aborted."""
    await client.enqueue(CreateUser(name="n"), key="wrong", delay=timedelta(hours=1))
    preview = await jane.get("/job/abort?id=wrong")
    before = await redis.zscore("arq:abort", "wrong")

    done = await jane.send("/job/abort", **preview.page.fields(), reason="a mistake")
    async with sessions() as session:
        acts = [(one.who, one.act, one.target, one.why) for one in await list_acts(session, since=None, limit=10)]
    unknown = await jane.get("/job/abort?id=none")
    nothing = await jane.send("/job/abort", id="none")

    assert (before, done.status, "Asked to abort wrong" in done.page.text) == (None, 200, True)
    assert await redis.zscore("arq:abort", "wrong") is not None
    assert acts == [("jane", "job abort", "wrong", "a mistake")]
    assert (unknown.status, nothing.status) == (409, 409)


@pytest.mark.usefixtures("everywhere")
async def test_acts_are_offered_to_operators_alone(jane: Browser, rob: Browser) -> None:
    """And those alone that can be done."""
    offered = {
        job_id: [
            one["href"] for one in (await jane.get(f"/job?id={job_id}")).page.of("a") if one.get("class") == "button"
        ]
        for job_id in ("waiting", "done", "dead")
    }
    to_rob = [one for one in (await rob.get("/job?id=dead")).page.of("a") if one.get("class") == "button"]

    assert offered == {
        "waiting": ["/job/abort?id=waiting"],
        "done": [],
        "dead": ["/dead/retry?id=dead", "/dead/discard?id=dead"],
    }
    assert to_rob == []


async def test_a_job_says_what_holds_it_up_and_leads_there(jane: Browser, redis: Redis, sessions: Sessions) -> None:
    """A paused kind, with the end of the pause; a limit, with those that run; a queue that nobody serves."""
    aside = {"paused": PAUSED_MS, "limited": PARKED_MS}
    await redis.mset({f"arq:job:{job_id}": _MESSAGE for job_id in aside})
    await redis.zadd("arq:queue", {job_id: score + 1_700_000_000_000 for job_id, score in aside.items()})
    async with sessions.begin() as session:
        await pause(session, Target("arq:queue", "create_user"), reason="x", who="joan", length=timedelta(hours=1))

    pages = {job_id: (await jane.get(f"/job?id={job_id}")).page for job_id in aside}
    links = {job_id: {one["href"] for one in page.of("a")} for job_id, page in pages.items()}

    assert {"/queue?name=arq%3Aqueue", "/queues/resume?queue=arq%3Aqueue&kind=create_user&job=paused"} <= links[
        "paused"
    ]
    assert "/jobs?state=running&queue=arq%3Aqueue&kind=create_user" in links["limited"]
    assert "no worker serves the queue arq:queue" in pages["limited"].text
    assert "Waiting held by a pause" in pages["paused"].text
    assert len(pages["paused"].of("time")) > 1  # those within sentences, too


async def test_a_list_leads_to_other_queues_with_such_jobs(rob: Browser, redis: Redis, client: JobClient) -> None:
    """An empty list is no end of the way."""
    await announce(redis, LiveWorker("w", "host", 1, ["mail"]))
    await client.enqueue(CreateUser(name="n"), key="here")

    page = (await rob.until("/jobs?queue=mail", "In other queues")).page

    assert "/jobs?state=waiting&queue=arq%3Aqueue" in {one["href"] for one in page.of("a")}
