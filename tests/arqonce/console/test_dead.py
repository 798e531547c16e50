"""Dead letters on the page: groups, lists, and acts on many of them in steps."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime

import pytest
from redis.asyncio import Redis
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.connection.requeue import requeue
from arqonce.console import bulk
from arqonce.console.bulk import BulkAct, BulkActs, BulkState, wait_shortly
from arqonce.console.pages import dead
from arqonce.console.settings import Settings
from arqonce.control.dead_letters import DISCARD, DeadAct
from arqonce.ledger import dead_jobs
from arqonce.ledger.audit import list_acts
from arqonce.ledger.dead_jobs import DeadFilter
from arqonce.ledger.tables import DeadJob, JobReceipt
from tests.arqonce.console.conftest import JANE, Browser, browsing, serving
from tests.conftest import wait_until_async

Sessions = async_sessionmaker[AsyncSession]


async def _bury(sessions: Sessions, job_name: str | None, reason: str, *ids: str) -> None:
    letter = {
        "job_name": job_name, "reason": reason, "message": b"{}", "explanation": "of Jane", "error": "", "attempts": 3,
        "queue": "q",
    }  # fmt: skip
    async with sessions.begin() as session:
        await session.execute(insert(DeadJob), [letter | {"job_id": job_id} for job_id in ids])


async def _left(sessions: Sessions) -> int:
    async with sessions() as session:
        return await session.scalar(select(func.count()).select_from(DeadJob)) or 0


async def _acts(sessions: Sessions) -> list[tuple[str, str, str, int, str | None]]:
    async with sessions() as session:
        found = await list_acts(session, since=None, limit=10)
    return [(one.who, one.act, one.target, one.number, one.why) for one in found]


async def test_letters_are_shown_in_groups(rob: Browser, sessions: Sessions) -> None:
    """By kind and reason; each leads to its letters; texts that are not ours are not shown."""
    await _bury(sessions, "charge", "OddError", "a", "b")
    await _bury(sessions, None, "unreadable", "c")

    groups = await rob.get("/dead")
    links = [str(one["href"]) for one in groups.page.of("a") if str(one["href"]).startswith("/dead/letters?")]
    letters = [await rob.get(link) for link in links]

    assert links == ["/dead/letters?kind=charge&code=OddError", "/dead/letters?unnamed=true&code=unreadable"]
    assert [answer.body.count('href="/job?id=') for answer in letters] == [2, 1]
    assert not any("Jane" in answer.body for answer in [groups, *letters])
    assert not [one for one in groups.page.of("a") if one.get("class") == "button" and "retry" in str(one["href"])]


async def test_a_group_is_retried(jane: Browser, sessions: Sessions, redis: Redis) -> None:
    """The preview says how many and shows ten; then its jobs are queued, and the audit has beginning and end."""
    await _bury(sessions, "charge", "OddError", *(f"job-{at:02}" for at in range(12)))
    await _bury(sessions, "charge", "late", "other")

    preview = await jane.get("/dead/retry?kind=charge&code=OddError")
    queued = await redis.zcard("q")
    done = await jane.send("/dead/retry", **preview.page.fields(), reason="mended")

    assert "12 dead letters" in preview.page.text
    assert sum("job-" in word for word in preview.page.words) == 10
    assert (queued, await redis.zcard("q"), await _left(sessions)) == (0, 12, 13)
    assert "12 dead letters put back." in done.page.text
    target = "all job=charge reason=OddError"
    assert await _acts(sessions) == [
        ("jane", "dead retry, done", target, 12, "mended"),
        ("jane", "dead retry", target, 12, "mended"),
    ]


@pytest.mark.parametrize(
    ("which", "left"),
    [({}, 0), ({"kind": "charge"}, 2), ({"code": "late"}, 4), ({"unnamed": "true"}, 4), ({"id": "a"}, 4)],
)
async def test_a_filter_is_discarded(jane: Browser, sessions: Sessions, which: dict[str, str], left: int) -> None:
    """Just what it matches."""
    await _bury(sessions, "charge", "OddError", "a", "b", "c")
    await _bury(sessions, "ship", "late", "d")
    await _bury(sessions, None, "unreadable", "e")

    done = await jane.send("/dead/discard", **which)
    again = await jane.send("/dead/discard", **which)

    assert (done.status, await _left(sessions), again.status) == (200, left, 409)


@pytest.mark.parametrize(
    "query", ["kind=a&unnamed=true", "id=no%20id", "code=" + "x" * 301, "all=1", "unnamed=perhaps"]
)
async def test_a_filter_that_is_wrong_does_nothing(jane: Browser, sessions: Sessions, query: str) -> None:
    """It is refused: it may not be taken for none, which means all."""
    await _bury(sessions, "charge", "OddError", "a")
    pairs = dict(part.split("=") for part in query.split("&"))

    answers = [await jane.get(f"/dead/discard?{query}"), await jane.send("/dead/discard", **pairs | {"id": "no id"})]

    assert ([answer.status for answer in answers], await _left(sessions)) == ([400, 400], 1)


async def test_a_job_that_has_taken_effect_is_not_hit(jane: Browser, sessions: Sessions) -> None:
    """Its letter is only not removed yet."""
    await _bury(sessions, "charge", "OddError", "a", "b")
    async with sessions.begin() as session:
        receipt = {"job_id": "a", "job_name": "charge", "request_hash": b"", "attempt": 1, "result": {}}
        await session.execute(insert(JobReceipt).values(**receipt))

    preview = await jane.get("/dead/discard")
    await jane.send("/dead/discard")

    assert "1 dead letter" in preview.page.text
    assert await _left(sessions) == 1


async def test_many_are_counted_up_to_a_bound(
    jane: Browser, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the preview says that there are more."""
    monkeypatch.setattr(dead, "_MOST_COUNTED", 2)
    await _bury(sessions, "charge", "OddError", "a", "b", "c")

    preview = await jane.get("/dead/discard")
    done = await jane.send("/dead/discard")

    assert "more than 2 dead letters" in preview.page.text
    assert ("3 dead letters discarded." in done.page.text, await _left(sessions)) == (True, 0)


async def test_an_act_can_be_stopped_by_another_operator(
    console_settings: Settings, sessions: Sessions, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on without a browser, shows how far it is, and what was not done stays as it was."""
    monkeypatch.setattr(dead_jobs, "STEP", 5)
    monkeypatch.setattr("arqonce.console.pages.dead.wait_shortly", _no_wait)
    second_step, go_on = asyncio.Event(), asyncio.Event()

    async def slow(redis: Redis, queue: str, messages: dict[str, bytes]) -> None:
        await requeue(redis, queue, messages)
        if await redis.zcard("q") > 5:
            second_step.set()
            await go_on.wait()

    monkeypatch.setattr("arqonce.control.dead_letters.requeue", slow)
    await _bury(sessions, "charge", "OddError", *(f"{at}" for at in range(50)))
    async with serving(console_settings) as url:
        async with browsing(url, JANE) as first:
            started = await first.ask("POST", "/dead/retry", data={}, headers=first.origin, follow=False)
        path = started.headers["Location"]
        await asyncio.wait_for(second_step.wait(), 5)
        async with browsing(url, JANE) as second:
            groups, shown = await second.get("/dead"), await second.get(path)
            await second.send("/dead/stop", **shown.page.fields())
            stopping = await second.get(path)
            go_on.set()
            await wait_until_async(lambda: _says(second, path, "Stopped"), 5)

    assert (started.status, path.startswith("/dead/act/")) == (303, True)
    assert "5 put back so far" in groups.page.text
    assert "5 put back of 50" in shown.page.text
    assert "Stopping" in stopping.page.text
    assert (await redis.zcard("q"), await _left(sessions)) == (10, 50)
    assert [(act, number) for _, act, _, number, _ in await _acts(sessions)] == [
        ("dead retry, stopped", 10),
        ("dead retry", 50),
    ]


async def _says(browser: Browser, path: str, word: str) -> bool:
    return word in (await browser.get(path)).page.text


async def _no_wait(_one: BulkAct) -> None:
    """Let the page be shown while the act runs."""


def _act(steps: bulk.Steps) -> BulkAct:
    act = DeadAct(DISCARD, DeadFilter(), "jane", None)
    return BulkAct(act=act, title="Discard all", verb="discarded", total=9, is_more=False, steps=steps)


async def _endless(_until: datetime) -> AsyncGenerator[int, None]:
    while True:
        yield 3
        await asyncio.sleep(0.001)


async def _broken(_until: datetime) -> AsyncGenerator[int, None]:
    yield 3
    raise OSError("gone")


async def test_how_an_act_ends_is_on_record(sessions: Sessions) -> None:
    """Stopped, broken off by an outage, broken off by the end of the console: with how many it was."""
    acts, told = BulkActs(), list[str]()
    ones = [_act(_endless), _act(_broken), _act(_endless)]
    for one in ones:
        acts.start(one, sessions, explain=str, ended=lambda: told.append("ended"))

    await wait_until_async(lambda: _are_at(ones, 3), 5)
    ones[0].ends_as = BulkState.STOPPED
    await wait_shortly(ones[0])
    await wait_shortly(ones[1])
    await acts.close()

    assert [one.state for one in ones] == [BulkState.STOPPED, BulkState.BROKEN_OFF, BulkState.BROKEN_OFF]
    assert (ones[1].trouble, len(told)) == ("gone", 3)
    found = {(act, number) for _, act, _, number, _ in await _acts(sessions)}
    assert found >= {
        ("dead discard", 9),
        ("dead discard, stopped", ones[0].done),
        ("dead discard, broken off", 3),
        ("dead discard, broken off", ones[2].done),
    }


async def _are_at(ones: list[BulkAct], number: int) -> bool:
    return all(one.done >= number for one in ones)


async def test_few_acts_run_at_once(sessions: Sessions) -> None:
    """A further one is refused, so that pages find a connection."""
    acts = BulkActs()
    for _ in range(bulk.MOST_RUNNING):
        acts.start(_act(_endless), sessions, explain=str, ended=lambda: None)

    with pytest.raises(Exception, match="Others are under way"):
        acts.start(_act(_endless), sessions, explain=str, ended=lambda: None)
    await acts.close()


@pytest.mark.parametrize("act", ["retry", "discard"])
async def test_what_dies_after_the_preview_is_not_confirmed(
    jane: Browser, sessions: Sessions, redis: Redis, act: str
) -> None:
    """Who has confirmed two letters acts on these two, whatever has died meanwhile."""
    await _bury(sessions, "charge", "OddError", "a", "b")
    preview = await jane.get(f"/dead/{act}?kind=charge")
    await _bury(sessions, "charge", "OddError", "later")

    done = await jane.send(f"/dead/{act}", **preview.page.fields())

    assert "2 dead letters" in done.page.text
    assert await redis.exists("arq:job:later") == 0
    assert await _left(sessions) == (3 if act == "retry" else 1)
    assert [number for *_, number, _ in await _acts(sessions)][-1] == 2


async def test_a_confirmation_of_no_time(jane: Browser, sessions: Sessions) -> None:
    """A form that somebody has changed says so, and does nothing."""
    await _bury(sessions, "charge", "OddError", "a")

    answers = [
        (await jane.send("/dead/discard", kind="charge", until=until)).status
        for until in ("x", "2026-01-01", "0001-01-01T00:00+14:00")
    ]

    assert (answers, await _left(sessions)) == ([400] * 3, 1)
