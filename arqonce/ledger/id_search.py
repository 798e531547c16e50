"""Finds jobs in the ledger by the beginning of their ids, by the indexes that begin with the id. Knows no queue."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.namespace import text_for

_MOST_READ = 1000
"""Rows of each table that are read. In the order of a language, other ids may stand among those that begin so."""


class FoundJob(NamedTuple):
    """A job, and in which state a table has it."""

    job_id: str
    job_name: str | None
    state: str
    """``done``, ``refused``, ``promised``, ``dead``, or ``tried``: an attempt has failed."""

    at: datetime


def _rows(table: str, state: str, at: str) -> str:
    return f"""(SELECT job_id, job_name, state, at FROM (
            SELECT job_id, job_name, {state} AS state, {at} AS at FROM arqonce.{table}
            WHERE job_id >= :beginning ORDER BY job_id LIMIT {_MOST_READ}
        ) AS following WHERE starts_with(job_id, :beginning) ORDER BY job_id LIMIT :most)"""  # noqa: S608 - constants


_FOUND = text(f"""
    SELECT DISTINCT ON (job_id) job_id, job_name, state, at FROM (
        {_rows("receipts", "CASE WHEN failure IS NULL THEN 'done' ELSE 'refused' END", "finished_at")}
        UNION ALL {_rows("outbox", "'promised'", "created_at")}
        UNION ALL {_rows("dead_jobs", "'dead'", "died_at")}
        UNION ALL {_rows("attempts", "'tried'", "failed_at")}
    ) AS found
    ORDER BY job_id, array_position(ARRAY['done', 'refused', 'dead', 'promised', 'tried'], state), at DESC LIMIT :most
""").bindparams(bindparam("beginning", type_=Text))  # noqa: S608 - all parts are constants


async def jobs_beginning(session: AsyncSession, beginning: str, *, most: int) -> Sequence[FoundJob]:
    """Return the first jobs whose id begins so, in the order of their ids. One round trip."""
    found = await session.execute(text_for(session, _FOUND), {"beginning": beginning, "most": most})
    return [FoundJob(*row) for row in found]
