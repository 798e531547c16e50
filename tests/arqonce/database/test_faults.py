"""Telling faults of PostgreSQL apart."""

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.database.faults import constraint_of, is_transient, sqlstate_of


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("08006", True),
        ("25006", True),
        ("40001", True),
        ("40P01", True),
        ("53300", True),
        ("55P03", True),
        ("57P01", True),
        ("22001", False),
        ("23505", False),
        ("42501", False),
    ],
)
async def test_the_sqlstate_decides_what_may_pass(session: AsyncSession, state: str, *, expected: bool) -> None:
    """Errors of the server, raised by a real one, are told apart by their code."""
    with pytest.raises(DBAPIError) as caught:
        await session.execute(text(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$"))

    assert (sqlstate_of(caught.value), is_transient(caught.value)) == (state, expected)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (PoolTimeoutError(), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (ValueError("of the handler"), False),
    ],
)
def test_an_unanswered_question_may_pass(error: Exception, *, expected: bool) -> None:
    """No answer at all is an outage; an error of our own code is none."""
    assert is_transient(error) is expected
    assert (sqlstate_of(error), constraint_of(error)) == (None, None)
