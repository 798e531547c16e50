"""The handlers of the jobs on users. A handler receives a session and a payload, returns a result, and never commits.

A batch handler does the same for many payloads with one statement, and returns a result for each.
"""

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from db import users
from db.tables import User
from jobs.payloads import (
    MAX_MATCHES,
    CreateUser,
    CreateUsers,
    EmailTakenError,
    FindUser,
    FoundOrCreated,
    FoundUsers,
    GetOrCreateUser,
    StoredUser,
    StoredUsers,
    UserView,
)

EMAIL_TAKEN = "another user has this e-mail: use get_or_create_user to find that user"


async def create_user(session: AsyncSession, payload: CreateUser) -> UserView:
    """Store the user."""
    return _view(await users.insert_user(session, payload.name, payload.email))


async def create_user_batch(session: AsyncSession, payloads: Sequence[CreateUser]) -> list[UserView | EmailTakenError]:
    """Store the users; of two with the same e-mail, the first is stored. One round trip."""
    new = await users.insert_new_users(session, [(payload.name, payload.email) for payload in payloads])
    return [_view(new[at]) if at in new else EmailTakenError(EMAIL_TAKEN) for at in range(len(payloads))]


async def get_or_create_user(session: AsyncSession, payload: GetOrCreateUser) -> FoundOrCreated:
    """Find the user by e-mail, or store it. A repeated delivery writes nothing more."""
    user, is_new = await users.insert_user_once(session, payload.name, payload.email)
    return FoundOrCreated(user=_view(user), is_new=is_new)


async def get_or_create_user_batch(session: AsyncSession, payloads: Sequence[GetOrCreateUser]) -> list[FoundOrCreated]:
    """Find the users by e-mail, or store them. One round trip, two if any is stored."""
    stored = await users.insert_users_once(session, [(payload.name, payload.email) for payload in payloads])
    return [FoundOrCreated(user=_view(user), is_new=is_new) for user, is_new in stored]


async def find_user(session: AsyncSession, payload: FindUser) -> FoundUsers:
    """Find users by the id, e-mail or name of the payload. One round trip."""
    found: Sequence[User | None] = ()
    if payload.id is not None:
        found = [await users.user_by_id(session, payload.id)]
    elif payload.email is not None:
        found = [await users.user_by_email(session, payload.email)]
    elif payload.name is not None:
        found = await users.users_by_name(session, payload.name, limit=MAX_MATCHES)
    return _found(found)


async def find_user_batch(session: AsyncSession, payloads: Sequence[FindUser]) -> list[FoundUsers]:
    """Find users: one round trip for all ids, one for all e-mails, and one for each name."""
    by_id = await users.rows_by_ids(session, {payload.id for payload in payloads if payload.id is not None})
    by_email = await users.rows_by_emails(session, {payload.email for payload in payloads if payload.email is not None})
    names = {payload.name for payload in payloads if payload.name is not None}
    by_name = {name: await users.users_by_name(session, name, limit=MAX_MATCHES) for name in names}

    def matches(payload: FindUser) -> Sequence[User | users.UserRow | None]:
        if payload.id is not None:
            return [by_id.get(payload.id)]
        if payload.email is not None:
            return [by_email.get(payload.email)]
        return () if payload.name is None else by_name[payload.name]

    return [_found(matches(payload)) for payload in payloads]


async def create_users(session: AsyncSession, payload: CreateUsers) -> StoredUsers:
    """Store all users that are not stored yet, in one statement."""
    stored = await users.insert_users_once(session, [(user.name, user.email) for user in payload.users])
    return StoredUsers(users=[StoredUser(id=user.id, is_new=is_new) for user, is_new in stored])


def _found(matches: Sequence[User | users.UserRow | None]) -> FoundUsers:
    return FoundUsers(users=[_view(user) for user in matches if user is not None])


def _view(user: User | users.UserRow) -> UserView:
    return UserView(id=user.id, name=user.name, email=user.email, created_at=user.created_at)
