"""Pages of jobs in the ledger, and groups of dead letters."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger import dead_groups as groups
from arqonce.ledger import listing
from arqonce.ledger.dead_groups import dead_groups
from arqonce.ledger.listing import Page, Place, list_letters, list_promises, list_receipts
from arqonce.ledger.tables import DeadJob, JobReceipt, PromisedJob

_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)

_RECEIPT: dict[str, Any] = {"job_name": "good", "request_hash": b"", "attempt": 1, "result": {}, "failure": None}
_LETTER: dict[str, Any] = {"message": b"", "explanation": "", "error": "", "attempts": 3, "queue": "q"}

List = Callable[[Place | None], Awaitable[Page[Any]]]


async def _walk(list_page: List) -> tuple[list[str], int]:
    """Follow the pages to the end; return all ids and how many pages there were."""
    ids, pages, after = list[str](), 0, None
    while pages == 0 or after is not None:
        page = await list_page(after)
        ids, pages, after = [*ids, *(row.job_id for row in page.rows)], pages + 1, page.next
        assert pages < 100
    return ids, pages


@pytest.fixture
async def receipts(session: AsyncSession) -> AsyncSession:
    """Store 30 results and 10 refusals: ten at each time."""
    rows = [
        _RECEIPT
        | {"job_id": f"{at:02}", "finished_at": _BEGIN + timedelta(minutes=at // 10)}
        | ({"job_name": "bad", "result": None, "failure": {"type": "taken", "message": "m"}} if at % 4 == 0 else {})
        for at in range(40)
    ]
    await session.execute(insert(JobReceipt), rows)
    return session


@pytest.mark.parametrize("limit", [1, 3, 10, 30, 100])
async def test_pages_show_each_row_once(receipts: AsyncSession, limit: int) -> None:
    """The latest first, also where rows have the same time, and whatever the size of a page."""

    async def done(after: Place | None) -> Page[Any]:
        return await list_receipts(receipts, job_name=None, refused=False, after=after, limit=limit)

    ids, _ = await _walk(done)

    assert len(ids) == len(set(ids)) == 30
    assert [one[0] for one in ids] == sorted((one[0] for one in ids), reverse=True)


async def test_a_filter_that_no_index_serves_reads_so_many_rows(
    receipts: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that is not full by then says so, and all pages together have all rows."""
    monkeypatch.setattr(listing, "MOST_READ", 7)

    async def refused(after: Place | None) -> Page[Any]:
        return await list_receipts(receipts, job_name="bad", refused=True, after=after, limit=5)

    first = await refused(None)
    ids, pages = await _walk(refused)
    none = await list_receipts(receipts, job_name="none", refused=True, after=None, limit=5)

    assert (first.is_partial, 0 < len(first.rows) < 5, none.is_partial, none.rows) == (True, True, True, [])
    assert sorted(ids) == [f"{at:02}" for at in range(0, 40, 4)]
    assert pages == 6


async def test_a_page_begins_at_a_time(receipts: AsyncSession) -> None:
    """So an operator can look at what was before a deploy."""
    page = await list_receipts(receipts, job_name=None, refused=True, after=Place(_BEGIN), limit=10)

    assert [(row.job_id, row.code, row.at) for row in page.rows] == [
        (one, "taken", _BEGIN) for one in ("08", "04", "00")
    ]


async def test_promises_come_in_the_order_in_which_they_are_given(session: AsyncSession) -> None:
    """Of one queue alone."""
    for number, queue in enumerate("aabab"):
        at = _BEGIN - timedelta(minutes=number)
        row = {"job_name": f"kind{number % 2}", "message": b"", "request_hash": b"", "due_at": at, "give_at": at}
        await session.execute(insert(PromisedJob).values(job_id=str(number), queue=queue, **row))

    everything = await list_promises(session, queue="a", job_name=None, after=None, limit=10)
    some = await list_promises(session, queue="a", job_name="kind1", after=None, limit=1)

    assert [row.job_id for row in everything.rows] == ["3", "1", "0"]
    assert ([row.job_id for row in some.rows], some.next) == (["3"], Place(_BEGIN - timedelta(minutes=3), 1))


@pytest.fixture
async def letters(session: AsyncSession) -> AsyncSession:
    """Store dead letters: 5 of each of two kinds and one reason, 3 of another reason, 2 without a kind."""
    kinds = [("a", "Oops")] * 5 + [("b", "Oops")] * 5 + [("b", "late")] * 3 + [(None, "unreadable")] * 2
    rows = [
        _LETTER | {"job_id": f"{at:02}", "job_name": name, "reason": reason, "died_at": _BEGIN + timedelta(minutes=at)}
        for at, (name, reason) in enumerate(kinds)
    ]
    await session.execute(insert(DeadJob), rows)
    return session


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, range(14, -1, -1)),
        ({"job_name": "b"}, range(12, 4, -1)),
        ({"job_name": "b", "reason": "Oops"}, range(9, 4, -1)),
        ({"reason": "Oops"}, range(9, -1, -1)),
        ({"is_unnamed": True}, (14, 13)),
        ({"is_unnamed": True, "reason": "unreadable"}, (14, 13)),
        ({"job_name": "b", "reason": "late", "queue": "other"}, ()),
    ],
)
async def test_letters_by_kind_and_reason(letters: AsyncSession, asked: dict[str, Any], found: range) -> None:
    """Every combination of filters has just its letters, the latest first."""

    async def listed(after: Place | None) -> Page[Any]:
        return await list_letters(letters, **{"job_name": None, "reason": None} | asked, after=after, limit=4)

    ids, _ = await _walk(listed)

    assert ids == [f"{at:02}" for at in found]


async def test_groups_of_letters(letters: AsyncSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """By kind and reason, with their first and last time; counts stop at a bound, and say so."""
    await letters.execute(
        insert(DeadJob).values(job_id="x", job_name=None, reason="unsigned", died_at=_BEGIN, **_LETTER)
    )
    found, is_more = await dead_groups(letters)
    monkeypatch.setattr(groups, "MOST_COUNTED", 4)
    bounded, _ = await dead_groups(letters)

    shown = [(one.job_name, one.reason, one.number, one.is_more, (one.last - one.first).seconds // 60) for one in found]
    assert shown == [
        ("a", "Oops", 5, False, 4),
        ("b", "Oops", 5, False, 4),
        ("b", "late", 3, False, 2),
        (None, "unreadable", 2, False, 1),
        (None, "unsigned", 1, False, 0),
    ]
    assert [(one.number, one.is_more) for one in bounded] == [(4, True), (4, True), (3, False), (2, False), (1, False)]
    assert not is_more


async def test_no_letters_have_no_groups(session: AsyncSession) -> None:
    """And no statement that could not be written."""
    assert await dead_groups(session) == ([], False)


async def test_pages_are_read_by_their_index(letters: AsyncSession) -> None:
    """No page sorts a table: it would be slow with many rows. With few, any index would do."""
    others = [_LETTER | {"job_id": f"other {at}", "job_name": "c", "reason": "late"} for at in range(3000)]
    await letters.execute(insert(DeadJob), [other | {"died_at": _BEGIN} for other in others])
    await letters.execute(text("ANALYZE arqonce.dead_jobs"))
    window = listing._LETTERS.window([DeadJob.job_name == "b", DeadJob.reason == "late"], Place(_BEGIN, 3))
    compiled = window.select().compile(letters.get_bind(), compile_kwargs={"literal_binds": True})
    plan = "\n".join(await letters.scalars(text(f"EXPLAIN {compiled}")))

    assert "dead_jobs_job_name_idx" in plan
    assert "Sort" not in plan
