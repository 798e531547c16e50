"""Queries on users."""

import asyncio
import random

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.database.faults import constraint_of
from db.users import (
    UserRow,
    insert_user,
    insert_user_once,
    insert_users_once,
    rows_by_emails,
    rows_by_ids,
    user_by_email,
    user_by_id,
    users_by_name,
)

Sessions = async_sessionmaker[AsyncSession]


async def test_an_inserted_user_is_found_by_id_email_and_name(session: AsyncSession) -> None:
    """Each look-up finds the same row."""
    user = await insert_user(session, "Zoë", "zoe@example.org")

    found = [
        await user_by_id(session, user.id),
        await user_by_email(session, "zoe@example.org"),
        *await users_by_name(session, "Zoë", limit=2),
    ]

    rows = [UserRow(row.id, row.name, row.email, row.created_at) for row in found if row is not None]
    assert rows == [user] * 3
    assert await rows_by_ids(session, [user.id]) == {user.id: user}
    assert await rows_by_emails(session, ["zoe@example.org"]) == {"zoe@example.org": user}
    assert user.created_at.tzinfo is not None


async def test_a_look_up_of_nothing_finds_nothing(session: AsyncSession) -> None:
    """What is not stored is no error."""
    found = [
        await user_by_id(session, 2**62),
        await user_by_email(session, "nobody@example.org"),
        list(await users_by_name(session, "Nobody", limit=1)),
        await rows_by_ids(session, [2**62]),
        await rows_by_emails(session, ["nobody@example.org"]),
    ]

    assert found == [None, None, [], {}, {}]


async def test_users_of_one_name_come_oldest_first_and_limited(session: AsyncSession) -> None:
    """Names repeat; the limit keeps the oldest."""
    stored = [await insert_user(session, "Ann") for _ in range(3)]

    found = await users_by_name(session, "Ann", limit=2)

    assert [user.id for user in found] == [user.id for user in stored[:2]]


async def test_a_taken_email_violates_the_constraint(session: AsyncSession) -> None:
    """Two users never share an e-mail."""
    await insert_user(session, "Ann", "ann@example.org")

    with pytest.raises(IntegrityError) as caught:
        await insert_user(session, "Anna", "ann@example.org")

    assert constraint_of(caught.value) == "users_email_key"


@pytest.mark.parametrize(
    ("name", "email", "constraint"),
    [
        ("", None, "users_name_length_check"),
        ("x" * 201, None, "users_name_length_check"),
        (" Ann", None, "users_name_trimmed_check"),
        ("Ann", "Ann@example.org", "users_email_normal_check"),
        ("Ann", "@example.org", "users_email_normal_check"),
        ("Ann", "É@example.org", "users_email_normal_check"),
        ("Ann", "x" * 250 + "@y.org", "users_email_length_check"),
    ],
)
async def test_the_database_refuses_what_payloads_refuse(
    session: AsyncSession, name: str, email: str | None, constraint: str
) -> None:
    """Whoever writes to the table, the rules hold."""
    with pytest.raises(IntegrityError) as caught:
        await insert_user(session, name, email)

    assert constraint_of(caught.value) == constraint


async def test_a_hundred_calls_at_once_with_one_email_store_one_user(sessions: Sessions) -> None:
    """One row, one "new", and the same id for all."""

    async def call() -> tuple[int, bool]:
        async with sessions.begin() as session:
            user, is_new = await insert_user_once(session, "Jane", "jane@example.org")
            return user.id, is_new

    outcomes = await asyncio.gather(*(call() for _ in range(100)))

    async with sessions() as session:
        count = await session.scalar(text("SELECT count(*) FROM users"))
    assert count == 1
    assert len({user_id for user_id, _ in outcomes}) == 1
    assert sum(is_new for _, is_new in outcomes) == 1


async def test_a_stored_user_is_not_changed_by_a_second_insert(session: AsyncSession) -> None:
    """The first name stays."""
    first, _ = await insert_user_once(session, "Jane", "jane@example.org")

    second = await insert_user_once(session, "Janet", "jane@example.org")

    assert second == (first, False)


async def test_a_set_answers_for_each_row_in_its_order(session: AsyncSession) -> None:
    """New, stored, twice in the set, without e-mail: each row gets its own answer."""
    stored = await insert_user(session, "Old", "old@example.org")

    outcomes = await insert_users_once(
        session,
        [
            ("Zed", "zed@example.org"),
            ("Nobody", None),
            ("Other", "old@example.org"),
            ("Zed again", "zed@example.org"),
            ("Nobody", None),
            ("Amy", "amy@example.org"),
        ],
    )

    rows = [row for row, _ in outcomes]
    assert [is_new for _, is_new in outcomes] == [True, True, False, False, True, True]
    assert rows[2] == UserRow(stored.id, "Old", "old@example.org", stored.created_at)
    assert rows[3].id == rows[0].id
    assert rows[1].id != rows[4].id
    named = await rows_by_ids(session, [row.id for row in rows])
    assert [named[row.id].name for row in rows] == ["Zed", "Nobody", "Old", "Zed", "Nobody", "Amy"]


async def test_an_empty_set_stores_nothing(session: AsyncSession) -> None:
    """No rows, no question to the server, no answer."""
    assert await insert_users_once(session, []) == []


async def test_sets_at_once_in_any_order_neither_deadlock_nor_store_twice(sessions: Sessions) -> None:
    """The same e-mails in different orders at the same time: one row each, one "new" each."""
    emails = [f"user{number}@example.org" for number in range(200)]

    async def store(seed: int) -> list[tuple[UserRow, bool]]:
        shuffled = random.Random(seed).sample(emails, len(emails))
        async with sessions.begin() as session:
            rows = await insert_users_once(session, [(email, email) for email in shuffled])
        return [row for _, row in sorted(zip(shuffled, rows, strict=True))]

    outcomes = await asyncio.gather(*(store(seed) for seed in range(10)))

    ids = [[row.id for row, _ in rows] for rows in outcomes]
    assert all(other == ids[0] for other in ids)
    assert sum(is_new for rows in outcomes for _, is_new in rows) == len(emails)


async def test_many_users_are_found_at_once(session: AsyncSession) -> None:
    """Ids and e-mails that do not exist are left out. Without any, the server is not asked."""
    users = [await insert_user(session, f"User {number}", f"{number}@example.org") for number in range(3)]

    by_id = await rows_by_ids(session, [users[2].id, 2**62, users[0].id])
    by_email = await rows_by_emails(session, ["1@example.org", "nobody@example.org"])

    assert by_id == {user.id: user for user in (users[0], users[2])}
    assert by_email == {"1@example.org": users[1]}
    assert (await rows_by_ids(session, []), await rows_by_emails(session, [])) == ({}, {})
