"""The audit on the page."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.ledger.audit import record
from tests.arqonce.console.conftest import Browser

Sessions = async_sessionmaker[AsyncSession]


async def test_acts_are_paged_and_found(rob: Browser, sessions: Sessions) -> None:
    """The latest come first, each once, whatever is added meanwhile; a person's, or a kind's, alone."""
    async with sessions.begin() as session:
        for number in range(120):
            await record(
                session,
                who="jane" if number % 40 else "joe",
                act="queue pause",
                target=f"q{number:03}",
                number=1,
                why=None,
            )

    seen, path = [], "/audit"
    while path:
        page = (await rob.get(path)).page
        seen += [word for word in page.words if word.startswith("q") and len(word) == 4]
        path = next((str(one["href"]) for one in page.of("a") if one.get("rel") == "next"), "")
        async with sessions.begin() as session:
            await record(session, who="joe", act="queue resume", target="later", number=1, why=None)
    joe = (await rob.get("/audit?who=joe&act=queue%20pause")).page

    assert seen == [f"q{number:03}" for number in reversed(range(120))]
    assert [word for word in joe.words if word.startswith(("q0", "q1"))] == ["q080", "q040", "q000"]


async def test_acts_of_a_time_lead_to_what_they_were_done_to(rob: Browser, sessions: Sessions) -> None:
    """Whoever asks what the night shift did sees no older acts; and goes on to the queue, the job, the schedules."""
    done = [("queue pause", "charge in billing"), ("job abort", "a-1"), ("schedules pause", "stock"), ("other", "old")]
    async with sessions.begin() as session:
        for act, target in done:
            await record(session, who="nina", act=act, target=target, number=1, why=None)
        await session.execute(text("UPDATE arqonce.audit SET at = now() - interval '13 h' WHERE act = 'other'"))

    night = (await rob.get("/audit?since=12h")).page
    all_acts = (await rob.get("/audit")).page

    assert {"/queue?name=billing", "/job?id=a-1", "/schedules"} <= {one["href"] for one in night.of("a")}
    assert ("old" in night.words, "old" in all_acts.words) == (False, True)


async def test_a_wrong_address_says_so(rob: Browser) -> None:
    """Which parameter is wrong, and how."""
    answers = [await rob.get(path) for path in ("/audit?before=x", "/audit?before=0", "/audit?page=2")]

    assert [answer.status for answer in answers] == [400] * 3
    assert "before: x: input should be a valid integer" in answers[0].page.text
    assert "page: there is no such parameter. Leave it out." in answers[2].page.text
