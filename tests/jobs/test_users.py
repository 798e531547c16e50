"""Handlers, called as the worker calls them, in a transaction that is rolled back."""

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from jobs.payloads import CreateUser, CreateUsers, FindUser, GetOrCreateUser, NewUser
from jobs.users import create_user, create_users, find_user, get_or_create_user


async def test_create_user_stores_and_shows_the_user(session: AsyncSession) -> None:
    """The result is the row."""
    created = await create_user(session, CreateUser(name="Jane", email="Jane@Example.org"))

    found = await find_user(session, FindUser(id=created.id))

    assert found.users == [created]
    assert (created.name, created.email) == ("Jane", "jane@example.org")


async def test_create_user_twice_with_one_email_is_refused(session: AsyncSession) -> None:
    """The database's error reaches dispatch as it is."""
    await create_user(session, CreateUser(name="Jane", email="jane@example.org"))

    with pytest.raises(IntegrityError):
        await create_user(session, CreateUser(name="Janet", email="jane@example.org"))


async def test_get_or_create_user_twice_writes_once(session: AsyncSession) -> None:
    """The second call finds what the first has stored."""
    payload = GetOrCreateUser(name="Jane", email="jane@example.org")

    outcomes = [await get_or_create_user(session, payload) for _ in range(2)]

    assert [outcome.is_new for outcome in outcomes] == [True, False]
    assert outcomes[0].user == outcomes[1].user


@pytest.mark.parametrize("key", ["id", "email", "name"])
async def test_find_user_by_each_key(session: AsyncSession, key: str) -> None:
    """Whatever the payload names finds the user."""
    jane = await create_user(session, CreateUser(name="Jane", email="jane@example.org"))

    found = await find_user(session, FindUser.model_validate({key: getattr(jane, key)}))

    assert found.first == jane


async def test_find_user_of_nobody_is_empty(session: AsyncSession) -> None:
    """Nothing found is an answer."""
    assert (await find_user(session, FindUser(name="Nobody"))).users == []


async def test_create_users_answers_for_each(session: AsyncSession) -> None:
    """New users and stored ones, in the order given."""
    jane = await create_user(session, CreateUser(name="Jane", email="jane@example.org"))

    stored = await create_users(
        session, CreateUsers(users=[NewUser(name="Ann"), NewUser(name="J", email="jane@example.org")])
    )

    assert [user.is_new for user in stored.users] == [True, False]
    assert stored.users[1].id == jane.id
