"""Questions that are asked together, of which some may be forbidden."""

from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.ledger.pauses import list_pauses, pause
from arqonce.ledger.tables import Pause
from arqonce.overview.looks import Looks


async def _denied(session: AsyncSession) -> str:
    return str(await session.execute(text("DO $$ BEGIN RAISE SQLSTATE '42501'; END $$")))


async def _limit(session: AsyncSession) -> str:
    return str(await session.scalar(text("SHOW statement_timeout")))


async def test_one_answer_that_is_missing_costs_no_other(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Those before it can still be read, and those after it have the limit as well."""
    async with sessions.begin() as session:
        await pause(session, "q", "", reason="x", who="joan", length=None)
    looks = Looks(sessions)
    none: Sequence[Pause] = []

    async with looks.together():
        first = await looks.in_ledger("pauses", list_pauses, none)
        second = await looks.in_ledger("a secret", _denied, "")
        third = await looks.in_ledger("the limit", _limit, "")

    assert [one.reason for one in first] == ["x"]
    assert (second, third, looks.not_seen) == ("", "2s", ["a secret: this role may not look"])
