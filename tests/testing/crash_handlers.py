"""Handlers and a dispatcher with the faults that the prover is there to find. Found by their names in the worker."""

from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from db.receipts import insert_receipts
from jobs.payloads import CreateUser, UserView
from jobs.users import create_user
from worker import batches, dispatch


async def commit_by_itself(session: AsyncSession, payload: CreateUser) -> UserView:
    """Store the user, and commit before there is a receipt."""
    view = await create_user(session, payload)
    for statement in ("COMMIT", "BEGIN"):  # session.commit() would be refused
        await session.execute(text(statement))
    return view


async def write_a_file(session: AsyncSession, payload: CreateUser) -> UserView:
    """Do something that no rollback takes back, such as sending a mail."""
    with Path("mails.txt").open("a") as mails:  # noqa: ASYNC230 - a line
        mails.write(f"Welcome, {payload.name}\n")
    return await create_user(session, payload)


def split_the_transaction() -> None:
    """Make the worker write receipts in a transaction of their own, after that of the effect."""

    async def insert_late(session: AsyncSession, *args: Any) -> None:  # noqa: ANN401 - passed on
        for statement in ("COMMIT", "BEGIN", "SELECT pg_current_xact_id()"):
            await session.execute(text(statement))
        await insert_receipts(session, *args)

    for module in (dispatch, batches):
        vars(module)["insert_receipts"] = insert_late


def fail() -> None:
    """Keep a worker from starting."""
    raise RuntimeError("the preparation is broken")
