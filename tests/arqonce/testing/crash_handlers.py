"""Handlers and a dispatcher with the faults that the prover is there to find. Found by their names in the worker."""

from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.database.asyncpg_connection import LentConnection
from arqonce.execution import attempt as dispatch
from arqonce.execution import batch as batches
from arqonce.ledger.receipts import insert_receipts
from jobs.payloads import CreateUser, UserView
from jobs.users import create_user


async def commit_by_itself(session: AsyncSession, payload: CreateUser) -> UserView:
    """Store the user by a connection of its own, which commits before there is a receipt."""
    url = session.get_bind().engine.url.set(drivername="postgresql", query={})
    connection = await asyncpg.connect(url.render_as_string(hide_password=False))
    await connection.execute("INSERT INTO users (name) VALUES ($1)", payload.name)
    await connection.close()
    return await create_user(session, payload)


async def write_a_file(session: AsyncSession, payload: CreateUser) -> UserView:
    """Do something that no rollback takes back, such as sending a mail."""
    with Path("mails.txt").open("a") as mails:  # noqa: ASYNC230 - a line
        mails.write(f"Welcome, {payload.name}\n")
    return await create_user(session, payload)


def split_the_transaction() -> None:
    """Make the worker write receipts in a transaction of their own, after that of the effect."""

    async def insert_late(session: AsyncSession, *args: Any, **options: Any) -> None:  # noqa: ANN401 - passed on
        await session.flush()
        connection = await session.connection()
        adapted: Any = (await connection.get_raw_connection()).dbapi_connection
        driver: LentConnection = adapted.raw  # a handler's may not commit
        for statement in ("COMMIT", "BEGIN", "SELECT pg_current_xact_id()"):
            await driver.control(statement)
        await insert_receipts(session, *args, **options)

    for module in (dispatch, batches):
        vars(module)["insert_receipts"] = insert_late


def fail() -> None:
    """Keep a worker from starting."""
    raise RuntimeError("the preparation is broken")
