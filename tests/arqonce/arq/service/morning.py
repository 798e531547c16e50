"""Functions of an arq service, read by ``arq-check`` and never run: those called ``may_`` could be handlers."""

from inspect import iscoroutinefunction
from typing import Any

from sqlalchemy import text

Context = dict[str, Any]

INSERT = text("INSERT INTO users (name) VALUES (:name)")


async def store(session: Any, name: str) -> None:  # noqa: ANN401 - a session
    """Do as told."""
    await session.execute(INSERT, {"name": name})


async def may_open_a_session(ctx: Context, name: str, *, age: int = 0) -> None:
    """Open a session as SQLAlchemy's manual does."""
    async with ctx["sessions"]() as session, session.begin():
        await session.execute(INSERT, {"name": name, "age": age})


async def may_use_the_engine(ctx: Context, name: str) -> None:
    """Use a connection without a session."""
    engine = ctx["engine"]
    async with engine.begin() as connection:
        await connection.execute(INSERT, {"name": name})


async def may_share_a_session(ctx: Context, name: str) -> None:
    """Show by its methods that it is a session."""
    session = ctx["session"]
    user = await session.get(Context, name)
    session.add(user)
    await session.commit()


async def may_pass_a_session_on(ctx: Context, name: str) -> None:
    """Show by its key that it is a session."""
    async with ctx["session_factory"]() as session:
        await store(session, name)
    await store(ctx["db"], name)


async def is_a_client(ctx: Context, url: str) -> Any:  # noqa: ANN401 - a response
    """Use a session of an HTTP client, as in arq's own manual."""
    response = await ctx["session"].get(url)
    return response.text


async def is_passed_on(ctx: Context, name: str) -> None:
    """Show nothing of what it is."""
    await store(ctx["session"], name)


async def uses_more(ctx: Context, name: str) -> None:
    """Use a database and the queue."""
    await ctx["db"].execute(INSERT, {"name": name})
    await ctx["redis"].enqueue_job("store", name)


async def passes_all_on(ctx: Context, name: str) -> None:
    """Pass on the database, and everything else."""
    await ctx["db"].execute(INSERT, {"name": name})
    await store(ctx, name)


async def is_another_database(ctx: Context, name: str) -> None:
    """Use a database without SQL."""
    await ctx["db"].users.insert_one({"name": name})


async def begins_another_transaction(ctx: Context, name: str) -> None:
    """Use a transaction without SQL, of a client with two names."""
    for _ in name:
        if name:
            client = ctx["db"]
    async with client.begin() as transaction:
        await transaction.insert_one({"name": name})


async def takes_anything(ctx: Context, *names: str) -> None:
    """Take arguments that have no names."""
    await ctx["db"].execute(INSERT, names)


async def uses_nothing(ctx: Context) -> None:
    """Do nothing."""


exec("async def has_no_source(ctx): await ctx['db'].execute('')")  # noqa: S102 - as code that is made at run time

_FUNCTIONS = [found for found in globals().copy().values() if iscoroutinefunction(found)]


class WorkerSettings:
    """The worker."""

    functions = _FUNCTIONS
    job_deserializer = dict
