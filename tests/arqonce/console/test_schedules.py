"""Schedules on the page: their next slots, pauses, and one job more at once."""

import re
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from redis.asyncio import Redis
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.console.settings import Settings
from arqonce.control.schedules import pause
from arqonce.ledger.audit import list_acts
from arqonce.ledger.schedule_control import UNTIL_RESUMED
from arqonce.ledger.tables import PromisedJob, ScheduleState
from arqonce.schedules.schedule import Schedule
from arqonce.spec import Registry
from jobs import FindUser
from jobs.registry import REGISTRY
from tests.arqonce.console import conftest
from tests.arqonce.console.conftest import JANE, Browser, browsing, serving
from worker.application import APPLICATION

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
async def schedules(sessions: Sessions) -> None:
    """Store a schedule that is on, one that is paused for ever, and one that is over."""
    common = {
        "definition": 1, "fleet": "arq:queue", "release": "r", "zone": "Europe/Berlin", "overlap": "allow",
        "catch_up": timedelta(0), "job_name": "find_user",
    }  # fmt: skip
    async with sessions.begin() as session:
        for name in ("hourly", "nightly"):
            session.add(ScheduleState(name=name, cron="0 * * * *", last_job_id=f"schedule:{name}:x", **common))


async def _acts(sessions: Sessions) -> list[tuple[str, str, str, str | None]]:
    async with sessions() as session:
        found = await list_acts(session, since=None, limit=10)
    return [(one.who, one.act, one.target, one.why) for one in found]


@pytest.mark.usefixtures("schedules")
async def test_schedules_are_listed_with_their_next_slots(rob: Browser) -> None:
    """Three of each; and the way to the last job. A reader is offered nothing."""
    page = (await rob.get("/schedules")).page

    assert [one["href"] for one in page.of("a") if str(one["href"]).startswith("/job?")] == [
        "/job?id=schedule%3Ahourly%3Ax",
        "/job?id=schedule%3Anightly%3Ax",
    ]
    assert len(page.of("time")) == 6
    assert not [one for one in page.of("a") if one.get("class") == "button"]


@pytest.mark.usefixtures("schedules")
async def test_a_pause_and_its_end(jane: Browser, sessions: Sessions) -> None:
    """Both are previewed and audited; a pause needs a reason; an unknown schedule is none."""
    preview = await jane.get("/schedules/pause?name=hourly")
    without = await jane.send("/schedules/pause", name="hourly", length="1h")
    paused = await jane.send("/schedules/pause", **preview.page.fields(), length="resumed", reason="a fair")
    listed = (await jane.get("/schedules")).page.text
    await jane.send("/schedules/resume", name="hourly")
    unknown = [await jane.get("/schedules/pause?name=none"), await jane.send("/schedules/resume", name="none")]

    assert (without.status, paused.status, [answer.status for answer in unknown]) == (400, 200, [404, 404])
    assert "by jane : a fair" in listed
    assert await _acts(sessions) == [
        ("jane", "schedules resume", "hourly", None),
        ("jane", "schedules pause", "hourly", "a fair"),
    ]
    assert "a fair" not in (await jane.get("/schedules")).page.text


@pytest.mark.usefixtures("schedules")
async def test_a_schedule_runs_now_where_its_code_is(
    console_settings: Settings, sessions: Sessions, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It promises one job, and says which; a schedule whose code is elsewhere is not offered."""
    assert await redis.ping()
    schedule = Schedule("hourly", FindUser(email="a@example.org"), cron="0 * * * *")

    def make(slot: datetime) -> FindUser:
        raise ValueError(f"Secretly Jane at {slot}")

    registry = Registry(*REGISTRY, schedules=[schedule, Schedule("broken", make, cron="0 * * * *")])
    monkeypatch.setattr(conftest, "APPLICATION", replace(APPLICATION, registry=registry))
    async with serving(console_settings) as url, browsing(url, JANE) as jane:
        offered = [str(one["href"]) for one in (await jane.get("/schedules")).page.of("a") if "run" in str(one["href"])]
        preview = await jane.get("/schedules/run?name=hourly")
        done = await jane.send("/schedules/run", **preview.page.fields(), reason="for Jane")
        elsewhere = await jane.send("/schedules/run", name="nightly")
        broken = await jane.send("/schedules/run", name="broken")
    async with sessions() as session:
        promised = (await session.scalars(select(PromisedJob.job_id))).all()

    assert (offered, done.status, elsewhere.status) == (["/schedules/run?name=hourly"], 200, 409)
    assert (broken.status, "Jane" in broken.page.text) == (409, False)
    assert "The schedule broken makes no payload for now: ValueError at" in broken.page.text
    assert [job_id.startswith("schedule:hourly:now:") for job_id in promised] == [True]
    assert [act for _, act, *_ in await _acts(sessions)] == ["schedules run-now"]


@pytest.mark.usefixtures("schedules")
async def test_the_overview_says_what_is_paused_and_how_to_resume_it(
    jane: Browser, rob: Browser, sessions: Sessions
) -> None:
    """Slots that are skipped are seen at once; those who may resume it are led there."""
    async with sessions.begin() as session:
        await pause(session, ["nightly"], until=timedelta(hours=1), who="joan", why="a fair")

    seen = (await rob.until("/", "The schedule nightly has been paused for")).page
    to_jane = (await jane.get("/")).page

    assert "joan: a fair. Slots are skipped meanwhile" in seen.text
    resume = "/schedules/resume?name=nightly"
    assert [resume in {one["href"] for one in page.of("a")} for page in (seen, to_jane)] == [False, True]
    assert "/schedules?paused=true" in {one["href"] for one in seen.of("a")}


@pytest.mark.usefixtures("schedules")
async def test_schedules_that_were_paused_together_are_one_line(jane: Browser, sessions: Sessions) -> None:
    """A pause of all for a deploy hides nothing else."""
    async with sessions.begin() as session:
        await pause(session, ["hourly", "nightly"], until=UNTIL_RESUMED, who="joan", why=None)

    page = (await jane.until("/", "The schedules hourly, nightly have been paused for")).page

    assert not [one for one in page.of("a") if str(one["href"]).startswith("/schedules/resume")]


async def test_many_schedules_have_pages(rob: Browser, sessions: Sessions) -> None:
    """Each is on one page, and those that are paused have pages of their own."""
    many = """
        INSERT INTO arqonce.schedules
            (name, definition, fleet, release, cron, zone, overlap, catch_up, paused_until)
        SELECT 's' || lpad(n::text, 3, '0'), 1, 'arq:queue', 'r', '0 * * * *', 'UTC', 'allow', interval '0',
            CASE WHEN n % 2 = 0 THEN timestamptz '9999-01-01 00:00Z' END FROM generate_series(1, 120) AS n
    """
    async with sessions.begin() as session:
        await session.execute(text(many))

    seen = {}
    for path in ("/schedules", "/schedules?paused=true"):
        words, pages, following = list[str](), 0, path
        while following:
            page = (await rob.get(following)).page
            words, pages = [*words, *(word for word in page.words if re.fullmatch("s[0-9]{3}", word))], pages + 1
            following = next((str(one["href"]) for one in page.of("a") if one.get("rel") == "next"), "")
        seen[path] = words, pages

    assert seen["/schedules"] == ([f"s{number:03}" for number in range(1, 121)], 3)
    assert seen["/schedules?paused=true"] == ([f"s{number:03}" for number in range(2, 121, 2)], 2)
