"""The record of acts in PostgreSQL."""

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger import audit
from arqonce.ledger.audit import page_of_acts, record


async def test_acts_of_a_person_are_found_by_an_index(session: AsyncSession) -> None:
    """Not by a look at everybody's; and a name that no index holds is cut, as the act must not fail."""
    name = "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))
    await record(session, who=name, act="queue pause", target="q", number=1, why=None)
    await session.execute(text("SET LOCAL enable_seqscan = off"))
    plan = "EXPLAIN SELECT * FROM arqonce.audit WHERE who = 'jane' AND id < 9 ORDER BY id DESC LIMIT 50"

    told = "\n".join(await session.scalars(text(plan)))
    found = await page_of_acts(session, before=None, who=name, act=None, since=None, limit=9)

    assert "audit_who_idx" in told
    assert "Sort" not in told
    assert [act.who for act in found.acts] == [name[:200]]


@pytest.mark.parametrize(
    ("act", "since", "pages"),
    [
        ("dead retry", None, [["11"], [], ["1"]]),  # five acts are read for each page
        ("dead retry", timedelta(hours=1), [["11"], []]),  # the sixth act is older
        ("queue pause", None, [["10", "9"], ["8", "7"], ["6", "5"], ["4", "3"], ["2", "0"]]),
        (None, timedelta(hours=1), [["11", "10"], ["9", "8"], ["7", "6"]]),
    ],
)
async def test_a_page_of_rare_acts_costs_no_more(
    session: AsyncSession,
    monkeypatch: pytest.MonkeyPatch,
    act: str | None,
    since: timedelta | None,
    pages: list[list[str]],
) -> None:
    """No index knows acts: some are looked at for a page, and none is left out or shown twice."""
    monkeypatch.setattr(audit, "MOST_READ", 5)
    for number in range(12):
        kind = "dead retry" if number in {1, 11} else "queue pause"
        await record(session, who="jane", act=kind, target=str(number), number=1, why=None)
    await session.execute(text("UPDATE arqonce.audit SET at = now() - interval '2 h' WHERE target::int < 6"))

    found, before = list[list[str]](), None
    while not found or before is not None:
        page = await page_of_acts(session, before=before, who=None, act=act, since=since, limit=2)
        found, before = [*found, [one.target for one in page.acts]], page.before

    assert found == pages
