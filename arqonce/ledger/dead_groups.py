"""Groups dead letters by kind and reason, and counts them up to a bound. An index has all of it. Knows no queue."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ARRAY, Integer, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.namespace import text_for

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


def _counted(is_named: str, name: str, chosen: str) -> str:
    """Return how to count the groups of kinds, or of none, and when their first and their last letter died."""
    letters = f"FROM arqonce.dead_jobs AS letter WHERE {is_named} AND letter.reason = wanted.reason"
    return f"""
        SELECT {name} AS job_name, reason, (SELECT count(*) FROM (SELECT {letters} LIMIT :most) AS counted) AS number,
            (SELECT died_at {letters} ORDER BY died_at LIMIT 1) AS first,
            (SELECT died_at {letters} ORDER BY died_at DESC LIMIT 1) AS last
        FROM unnest(:names, :reasons) AS wanted (job_name, reason) WHERE wanted.job_name IS {chosen}
    """  # noqa: S608 - all parts are constants


_COUNT = text(
    _counted("letter.job_name = wanted.job_name", "wanted.job_name", "NOT NULL")
    + "UNION ALL"
    + _counted("letter.job_name IS NULL", "NULL", "NULL")
).bindparams(
    bindparam("names", type_=ARRAY(Text)), bindparam("reasons", type_=ARRAY(Text)), bindparam("most", type_=Integer)
)


async def dead_groups(session: AsyncSession) -> tuple[list[DeadGroup], bool]:
    """Return the groups, most letters first, and whether there are more than ``MOST_GROUPS``. Two round trips.

    Letters whose job has taken effect meanwhile are among them until the retention removes them.
    """
    found = (await session.execute(text_for(session, _NAMES))).all()
    names: list[tuple[str | None, str]] = [(name, reason) for name, reason in found[:MOST_GROUPS]]
    if not names:
        return [], False
    bound = min(MOST_COUNTED, max(100, _ALL_COUNTED // len(names)))
    parameters = {"names": [name for name, _ in names], "reasons": [reason for _, reason in names], "most": bound + 1}
    groups = [
        DeadGroup(row.job_name, row.reason, min(row.number, bound), row.number > bound, row.first, row.last)
        for row in await session.execute(text_for(session, _COUNT), parameters)
        if row.number
    ]
    groups.sort(key=lambda group: (-group.number, group.job_name or "", group.reason))
    return groups, len(found) > len(names)
