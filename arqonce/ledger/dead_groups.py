"""Groups dead letters by kind and reason, and counts them up to a bound. An index has all of it. Knows no queue."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, func, literal, select, text, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.namespace import text_for
from arqonce.ledger.tables import DeadJob

MOST_GROUPS = 100

MOST_COUNTED = 10_000
"""Letters of a group are counted up to this."""

_ALL_COUNTED = 100_000
"""Letters of all groups together are counted up to about this: some 20 ms."""


class DeadGroup(NamedTuple):
    """Dead letters of one kind with the same reason."""

    job_name: str | None
    """``None``: their messages name no job."""

    reason: str
    number: int
    is_more: bool
    """Whether there are more than ``number``."""

    first: datetime
    last: datetime


_NAMES = text(f"""
    WITH RECURSIVE named AS (
        (SELECT job_name, reason, 1 AS number FROM arqonce.dead_jobs WHERE job_name IS NOT NULL
            ORDER BY job_name, reason LIMIT 1)
        UNION ALL SELECT following.job_name, following.reason, number + 1 FROM named, LATERAL (
            SELECT job_name, reason FROM arqonce.dead_jobs AS letter
            WHERE (letter.job_name, letter.reason) > (named.job_name, named.reason)
            ORDER BY job_name, reason LIMIT 1) AS following
        WHERE number <= {MOST_GROUPS}),
    unnamed AS (
        (SELECT reason, 1 AS number FROM arqonce.dead_jobs WHERE job_name IS NULL ORDER BY reason LIMIT 1)
        UNION ALL SELECT following.reason, number + 1 FROM unnamed, LATERAL (
            SELECT reason FROM arqonce.dead_jobs AS letter
            WHERE letter.job_name IS NULL AND letter.reason > unnamed.reason ORDER BY reason LIMIT 1) AS following
        WHERE number <= {MOST_GROUPS})
    SELECT job_name, reason FROM named UNION ALL SELECT NULL, reason FROM unnamed LIMIT {MOST_GROUPS + 1}
""")  # noqa: S608 - the number is a constant


def _counted(at: int, job_name: str | None, reason: str, most: int) -> Select[Any]:
    """Return how to count one group up to one more than ``most``, and when its first and its last letter died."""
    is_named = DeadJob.job_name.is_(None) if job_name is None else DeadJob.job_name == job_name
    condition = is_named & (DeadJob.reason == reason)
    letters = select(DeadJob.died_at).where(condition).limit(most + 1).subquery()
    figures = {
        "number": select(func.count()).select_from(letters),
        "first": select(func.min(DeadJob.died_at)).where(condition),
        "last": select(func.max(DeadJob.died_at)).where(condition),
    }
    return select(literal(at).label("at"), *(one.scalar_subquery().label(name) for name, one in figures.items()))


async def dead_groups(session: AsyncSession) -> tuple[list[DeadGroup], bool]:
    """Return the groups, most letters first, and whether there are more than ``MOST_GROUPS``. Two round trips.

    Letters whose job has taken effect meanwhile are among them until the retention removes them.
    """
    found = (await session.execute(text_for(session, _NAMES))).all()
    names: list[tuple[str | None, str]] = [(name, reason) for name, reason in found[:MOST_GROUPS]]
    if not names:
        return [], False
    bound = min(MOST_COUNTED, max(100, _ALL_COUNTED // len(names)))
    parts = [_counted(at, name, reason, bound) for at, (name, reason) in enumerate(names)]
    groups = [
        DeadGroup(name, reason, min(row.number, bound), row.number > bound, row.first, row.last)
        for row in await session.execute(union_all(*parts))
        for name, reason in [names[row.at]]
        if row.number
    ]
    groups.sort(key=lambda group: (-group.number, group.job_name or "", group.reason))
    return groups, len(found) > len(names)
