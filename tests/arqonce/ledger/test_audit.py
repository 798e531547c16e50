"""The record of acts in PostgreSQL."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.audit import list_acts, record


async def test_acts_of_a_person_are_found_by_an_index(session: AsyncSession) -> None:
    """Not by a look at everybody's; and a name that no index holds is cut, as the act must not fail."""
    name = "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))
    await record(session, who=name, act="queue pause", target="q", number=1, why=None)
    await session.execute(text("SET LOCAL enable_seqscan = off"))
    plan = "EXPLAIN SELECT * FROM arqonce.audit WHERE who = 'jane' AND id < 9 ORDER BY id DESC LIMIT 50"

    told = "\n".join(await session.scalars(text(plan)))
    found = await list_acts(session, since=None, limit=9, who=name)

    assert "audit_who_idx" in told
    assert "Sort" not in told
    assert [act.who for act in found] == [name[:200]]
