"""Jobs whose handlers make every mistake with their connection: ``WORKER_REGISTRY=chaos.careless:REGISTRY``.

Each job stores one user and makes the mistake that its payload names. It must end in one of two ways: the user is
stored once and there is a receipt, or (``REFUSED``) the job fails and nothing is stored. Other jobs are not affected.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.payloads import Payload, Result
from arqonce.spec import JobSpec, Registry
from db.users import insert_user
from jobs.fields import UserName


class Careless(Payload[Result]):
    """Store a user of this name, and make a mistake, one of ``HABITS``."""

    job_name: ClassVar[str] = "careless"
    what: str
    name: UserName = "Nobody"


Habit = Callable[[AsyncSession, str], Awaitable[Any]]
_habits: dict[str, Habit] = {}
_refused: set[str] = set()

_LOCK = 20_261_129
"""An advisory lock that nothing else uses."""

_left_behind: set[object] = set()
"""Objects that are never closed. The references keep the garbage collector from closing them."""


def _habit(function: Habit) -> Habit:
    """Register a mistake that a handler makes after it has stored its user."""

    async def do(session: AsyncSession, name: str) -> None:
        await insert_user(session, name)
        await function(session, name)

    _habits[function.__name__.strip("_")] = do
    return function


def _refused_habit(function: Habit) -> Habit:
    """Register a mistake that makes the job fail. The function itself stores the user."""
    _habits[function.__name__.strip("_")] = function
    _refused.add(function.__name__.strip("_"))
    return function


def _statement(name: str, sql: str) -> None:
    """Register a statement as a mistake: executed by itself, in a DO block, and in a function."""

    async def run(session: AsyncSession, user: str) -> None:
        await insert_user(session, user)
        await session.execute(text(sql.replace(":", r"\:")))

    async def block(session: AsyncSession, user: str) -> None:
        await insert_user(session, user)
        body = f"BEGIN EXECUTE $sql${sql}$sql$; END"
        await session.execute(text(f"DO $do${body}$do$".replace(":", r"\:")))

    async def function(session: AsyncSession, user: str) -> None:
        await insert_user(session, user)
        body = f"BEGIN EXECUTE $sql${sql}$sql$; END"
        define = f"CREATE FUNCTION pg_temp.careless() RETURNS void LANGUAGE plpgsql AS $do${body}$do$"
        await session.execute(text(define.replace(":", r"\:")))
        await session.execute(text("SELECT pg_temp.careless()"))

    _habits.update({name: run, f"{name}_in_a_block": block, f"{name}_in_a_function": function})


for _name, _sql in {
    "set_search_path": "SET search_path = careless, public",
    "set_read_only": "SET default_transaction_read_only = on",
    "set_isolation": "SET default_transaction_isolation = 'serializable'",
    "set_timezone": "SET timezone = 'Asia/Kolkata'",
    "set_datestyle": "SET datestyle = 'German'",
    "set_statement_timeout": "SET statement_timeout = '60s'",
    "set_tenant": "SELECT set_config('app.tenant', 'a', false)",
    "set_role": "SET ROLE pg_read_all_data",
    "set_session_authorization": "SET SESSION AUTHORIZATION pg_read_all_data",
    "lock": f"SELECT pg_advisory_lock({_LOCK})",
    "share_lock": f"SELECT pg_advisory_lock_shared({_LOCK + 1})",
    "listen": "LISTEN careless",
    "prepare": "PREPARE careless AS SELECT 1",
    "hold_a_cursor": "DECLARE careless CURSOR WITH HOLD FOR SELECT generate_series(1, 100)",
    "make_a_temporary_table": "CREATE TEMPORARY TABLE users (LIKE public.users)",
    "draw_from_a_sequence": "SELECT nextval(pg_get_serial_sequence('public.users', 'id'))",
    "deallocate_all": "DEALLOCATE ALL",
    "notify": "NOTIFY careless, 'once'",
}.items():
    _statement(_name, _sql)


async def _driver(session: AsyncSession) -> Any:  # noqa: ANN401 - asyncpg's connection, which has no types
    raw = await (await session.connection()).get_raw_connection()
    return raw.driver_connection


def _engine(session: AsyncSession) -> Any:  # noqa: ANN401 - an engine, or in tests a connection
    return session.bind


@_habit
async def _add_a_listener(session: AsyncSession, _: str) -> None:
    await (await _driver(session)).add_listener("careless", print)


@_habit
async def _set_a_type_codec(session: AsyncSession, _: str) -> None:
    driver = await _driver(session)
    await driver.set_type_codec("int8", schema="pg_catalog", encoder=str, decoder=lambda _: "a text", format="text")


@_habit
async def _leave_a_stream_open(session: AsyncSession, _: str) -> None:
    stream = await session.stream(text("SELECT generate_series(1, 100000)"))
    _left_behind.add(stream)
    await anext(aiter(stream))


@_habit
async def _leave_a_savepoint_open(session: AsyncSession, _: str) -> None:
    await session.begin_nested()


@_habit
async def _leave_a_connection_open(session: AsyncSession, _: str) -> None:
    connection = await _engine(session).connect()
    _left_behind.add(connection)
    await connection.execute(text("SELECT 1"))


@_habit
async def _leave_a_session_open(session: AsyncSession, _: str) -> None:
    second = AsyncSession(_engine(session))
    _left_behind.add(second)
    await second.execute(text("SELECT 1"))


@_habit
async def _leave_a_task_behind(session: AsyncSession, _: str) -> None:
    async def go_on() -> None:
        await asyncio.sleep(0.05)
        await session.execute(text("SELECT 1"))

    task = asyncio.create_task(go_on())
    _left_behind.add(task)
    task.add_done_callback(lambda task: task.exception())


@_habit
async def _keep_the_driver(session: AsyncSession, _: str) -> None:
    driver = await _driver(session)

    async def go_on() -> None:
        await asyncio.sleep(0.05)
        await driver.execute("SET search_path = pg_catalog")

    task = asyncio.create_task(go_on())
    _left_behind.add(task)
    task.add_done_callback(lambda task: task.exception())


async def _store_by_driver(session: AsyncSession, name: str) -> None:
    await (await _driver(session)).execute("INSERT INTO users (name) VALUES ($1)", name)


async def _copy_first(session: AsyncSession, name: str) -> None:
    await (await _driver(session)).copy_records_to_table("users", records=[(name,)], columns=["name"])


async def _serializable(session: AsyncSession, name: str) -> None:
    await session.connection(execution_options={"isolation_level": "SERIALIZABLE"})
    await insert_user(session, name)


_habits |= {"store_by_driver": _store_by_driver, "copy_first": _copy_first, "serializable": _serializable}


async def _store_at_once(session: AsyncSession, name: str) -> None:
    """Use the session concurrently. SQLAlchemy raises or not, by chance; if it does, the job fails."""
    insert = text("INSERT INTO users (name) VALUES (:name)")
    await asyncio.gather(session.execute(insert, {"name": name}), *(session.execute(text("SELECT 1")) for _ in "ab"))


_habits["store_at_once"] = _store_at_once


@_refused_habit
async def _autocommit(session: AsyncSession, name: str) -> None:
    await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
    await insert_user(session, name)


def _ending(name: str, sql: str) -> None:
    async def by_session(session: AsyncSession, user: str) -> None:
        await insert_user(session, user)
        await session.execute(text(sql))

    async def by_driver(session: AsyncSession, user: str) -> None:
        await insert_user(session, user)
        await (await _driver(session)).execute(f"{sql}; BEGIN")

    _habits[name], _habits[f"{name}_by_driver"] = by_session, by_driver
    _refused.update((name, f"{name}_by_driver"))


for _name, _sql in {
    "commit": "COMMIT",
    "end": "end",
    "roll_back": "ROLLBACK",
    "commit_and_chain": "/* on */ COMMIT AND CHAIN",
    "roll_back_and_chain": "ROLLBACK AND CHAIN",
    "prepare_transaction": "PREPARE TRANSACTION 'careless'",
}.items():
    _ending(_name, _sql)


@_refused_habit
async def _commit_the_session(session: AsyncSession, name: str) -> None:
    await insert_user(session, name)
    await session.commit()


@_refused_habit
async def _commit_the_connection(session: AsyncSession, name: str) -> None:
    await insert_user(session, name)
    await (await session.connection()).commit()


@_refused_habit
async def _roll_back_and_go_on(session: AsyncSession, name: str) -> None:
    await session.rollback()
    await insert_user(session, name)


@_refused_habit
async def _close_and_go_on(session: AsyncSession, name: str) -> None:
    await session.close()
    await insert_user(session, name)


@_refused_habit
async def _store_in_a_second_session(session: AsyncSession, name: str) -> None:
    await insert_user(session, name)
    async with AsyncSession(_engine(session)) as second:
        await insert_user(second, name)
        await second.commit()


HABITS: tuple[str, ...] = tuple(_habits)
"""All mistakes."""

REFUSED = frozenset(_refused)
"""The mistakes that make a job fail, so that nothing is stored."""


async def careless(session: AsyncSession, payload: Careless) -> Result:
    """Store the user and make the mistake."""
    await _habits[payload.what](session, payload.name)
    return Result()


REGISTRY = Registry(JobSpec(Careless, careless))
