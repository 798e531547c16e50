"""Promising many jobs in one statement, with each kind of connection, on the real database."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.client.requests import Promised
from arqonce.failures import InvalidMessageError, KeyConflictError
from arqonce.outbox import enqueue_in, enqueue_many_in, enqueue_many_in_sync
from arqonce.wire.codec import decode
from arqonce.wire.message import read_message
from jobs import CreateUser, FindUser
from tests.arqonce.connection.connections import ASYNC, ASYNC_IDS, SYNC, SYNC_IDS
from tests.promised import execute, until

Sessions = async_sessionmaker[AsyncSession]

_RECEIPT = (
    "INSERT INTO arqonce.receipts (job_id, job_name, request_hash, result, attempt) VALUES ('done', '', '', '{}', 1)"
)


def _users(number: int) -> list[CreateUser]:
    return [CreateUser(name=f"u{at}") for at in range(number)]


async def _rows(sessions: Sessions) -> list[tuple[str, str]]:
    async with sessions() as session:
        rows = await session.execute(text("SELECT job_id, queue FROM arqonce.outbox ORDER BY job_id"))
        return [(row.job_id, row.queue) for row in rows]


def _told(promises: list[Promised[Any]]) -> list[tuple[str, bool]]:
    return [(promise.job_id, promise.is_new) for promise in promises]


@pytest.mark.parametrize("connect", ASYNC, ids=ASYNC_IDS)
async def test_many_promises_count_if_their_transaction_commits(
    sessions: Sessions, postgres_url: str, connect: Callable[[str], Any]
) -> None:
    """Rolled back, there is none; committed, each is there once; a key that is repeated in one call is a duplicate."""
    with suppress(ZeroDivisionError):
        async with connect(postgres_url) as connection:
            await enqueue_many_in(connection, _users(2), keys=["rolled", "back"])
            raise ZeroDivisionError

    async with connect(postgres_url) as connection:
        one, two = _users(2)
        first = await enqueue_many_in(connection, [two, one, two], keys=["b", "a", "b"], queue="other")
        before = await _rows(sessions)
    async with connect(postgres_url) as connection:
        again = await enqueue_many_in(connection, [one, CreateUser(name="c"), two], keys=["a", None, "b"])

    assert _told(first) == [("b", True), ("a", True), ("b", False)]
    assert [promise.is_new for promise in again] == [False, True, False]
    assert before == []
    assert await _rows(sessions) == sorted([("a", "other"), ("b", "other"), (again[1].job_id, "arq:queue")])


@pytest.mark.parametrize("connect", SYNC, ids=SYNC_IDS)
async def test_many_promises_in_the_synchronous_form(
    sessions: Sessions, postgres_url: str, connect: Callable[[str], Any]
) -> None:
    """The same for services that block; no jobs need no statement."""

    def promise() -> list[tuple[str, bool]]:
        with connect(postgres_url) as connection:
            assert enqueue_many_in_sync(connection, []) == []
            return _told(enqueue_many_in_sync(connection, _users(2), keys=["a", "b"]))

    told = [await asyncio.to_thread(promise) for _ in range(2)]

    assert told == [[("a", True), ("b", True)], [("a", False), ("b", False)]]
    assert await _rows(sessions) == [("a", "arq:queue"), ("b", "arq:queue")]


async def test_a_database_with_old_rules_for_backslashes_gets_the_messages_as_they_are(
    sessions: Sessions, postgres_url: str
) -> None:
    """Psycopg writes bytes in an array as text that such a server reads as other bytes; Django has such cursors."""
    old = "-c standard_conforming_strings=off -c escape_string_warning=off"
    factory = psycopg.AsyncClientCursor
    async with await psycopg.AsyncConnection.connect(postgres_url, options=old, cursor_factory=factory) as connection:
        await enqueue_many_in(connection, [CreateUser(name="Jane"), CreateUser(name="Joe")])

    async with sessions() as session:
        messages = await session.scalars(text("SELECT message FROM arqonce.outbox ORDER BY job_id"))
    assert [decode(message)["k"]["name"] for message in messages] == ["Jane", "Joe"]


async def test_thousands_are_promised_in_a_statement_each_two_thousand(sessions: Sessions, postgres_url: str) -> None:
    """In any order of keys, with the outcome of each; the commit wakes a relay, not for what is due later."""
    statements = []
    engine = sessions.kw["bind"].sync_engine

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    keys = [f"k{(at * 7919) % 4500}" for at in range(4500)]
    heard: asyncio.Queue[object] = asyncio.Queue()
    listener = await asyncpg.connect(postgres_url)
    await listener.add_listener("job_outbox", lambda *told: heard.put_nowait(told[-1]))
    event.listen(engine, "after_cursor_execute", note)
    try:
        async with sessions.begin() as session:
            await enqueue_many_in(session, _users(2), queue="later", delay=timedelta(minutes=1))
            promises = await enqueue_many_in(session, _users(4500), keys=keys)
    finally:
        event.remove(engine, "after_cursor_execute", note)
    async with asyncio.timeout(10):
        woken = await heard.get()
    await listener.close()

    assert _told(promises) == [(key, True) for key in keys]
    assert len(await _rows(sessions)) == 4502
    assert (len(statements), woken, heard.empty()) == (4, "arq:queue", True)


async def test_conflicts_among_many_are_told_and_the_others_are_promised(sessions: Sessions) -> None:
    """With an outbox row, a receipt, and another job of the same call; the transaction goes on."""
    async with sessions.begin() as session:
        await enqueue_in(session, CreateUser(name="other"), key="promised")
    await execute(sessions, _RECEIPT)

    async with sessions.begin() as session:
        with pytest.raises(KeyConflictError, match=r"3 of 5 keys .* 'promised', 'done', 'twice': give each"):
            await enqueue_many_in(session, _users(5), keys=["promised", "fine", "done", "twice", "twice"])
        with pytest.raises(KeyConflictError, match="the key 'done' was used"):
            await enqueue_many_in(session, [FindUser(name="x")], keys=["done"])

    assert [job_id for job_id, _ in await _rows(sessions)] == ["fine", "promised", "twice"]


async def test_callers_with_the_same_keys_in_opposite_orders_wait_and_do_not_deadlock(sessions: Sessions) -> None:
    """Both wait for a third one that has a key in the middle; when that rolls back, one is new and one a duplicate."""
    keys = [f"k{at}" for at in range(9)]
    users = dict(zip(keys, _users(9), strict=True))

    async def promise(order: list[str]) -> list[bool]:
        async with sessions.begin() as session:
            promises = await enqueue_many_in(session, [users[key] for key in order], keys=order)
        return [promise.is_new for promise in promises]

    async def both_wait() -> bool:
        async with sessions() as session:
            return bool(await session.scalar(text("SELECT count(*) = 2 FROM pg_locks WHERE NOT granted")))

    async with sessions() as session, asyncio.TaskGroup() as group:
        await enqueue_in(session, CreateUser(name="other"), key="k4")
        told = [group.create_task(promise(order)) for order in (keys, keys[::-1])]
        await until(both_wait)
        await session.rollback()

    assert sorted(task.result() for task in told) == [[False] * 9, [True] * 9]
    assert len(await _rows(sessions)) == 9


async def test_many_requests_may_be_unique_for_a_time_and_expire(sessions: Sessions) -> None:
    """Each is told the job of an equal one, of this call or before; all expire at one time."""
    one, two, three = _users(3)
    minute = timedelta(minutes=1)
    async with sessions.begin() as session:
        (before,) = await enqueue_many_in(session, [one], unique_for=minute)
        promises = await enqueue_many_in(session, [one, two, three, two], unique_for=minute, expires=minute)

    first, second, _, again = promises
    assert [promise.is_new for promise in promises] == [False, True, True, False]
    assert (first.job_id, again.job_id) == (before.job_id, second.job_id)
    async with sessions() as session:
        messages = await session.scalars(text("SELECT message FROM arqonce.outbox"))
        assert len([message for message in messages if read_message(message).expires_ms]) == 2


@pytest.mark.parametrize(
    ("payloads", "keys", "told"),
    [
        (CreateUser(name="x"), None, "takes a list of payloads"),
        (_users(2), ["a"], "2 payloads and 1 keys"),
        (_users(2), "ab", "this is a str"),
        (_users(1), ["with space"], "the key must be"),
        ([CreateUser], None, "is the instance of a payload"),
    ],
    ids=["one", "keys", "text", "key", "class"],
)
async def test_bad_input_of_many_is_refused_before_anything_is_sent(
    sessions: Sessions,
    payloads: Any,  # noqa: ANN401 - what is wrong
    keys: list[str] | None,
    told: str,
) -> None:
    """The transaction goes on."""
    async with sessions.begin() as session:
        with pytest.raises(InvalidMessageError, match=told):
            await enqueue_many_in(session, payloads, keys=keys)
        assert await session.scalar(text("SELECT 1")) == 1
