"""What the jobs on users do. A handler sees a session and a payload, returns a result, and never commits."""

from sqlalchemy.ext.asyncio import AsyncSession

from db import users
from db.tables import User
from jobs.payloads import (
    MAX_MATCHES,
    CreateUser,
    CreateUsers,
    FindUser,
    FoundOrCreated,
    FoundUsers,
    GetOrCreateUser,
    StoredUser,
    StoredUsers,
    UserView,
)


async def create_user(session: AsyncSession, payload: CreateUser) -> UserView:
    """Store the user."""
    return UserView.model_validate(await users.insert_user(session, payload.name, payload.email))


async def get_or_create_user(session: AsyncSession, payload: GetOrCreateUser) -> FoundOrCreated:
    """Find the user by e-mail, or store it. Delivered twice, it writes once."""
    user, is_new = await users.insert_user_once(session, payload.name, payload.email)
    return FoundOrCreated(user=UserView.model_validate(user), is_new=is_new)


async def find_user(session: AsyncSession, payload: FindUser) -> FoundUsers:
    """Look the users up by whatever the payload names."""
    return FoundUsers(users=[UserView.model_validate(user) for user in await _matches(session, payload)])


async def _matches(session: AsyncSession, payload: FindUser) -> list[User]:
    if payload.name is not None:
        return list(await users.users_by_name(session, payload.name, limit=MAX_MATCHES))
    if payload.email is not None:
        found = await users.user_by_email(session, payload.email)
    else:
        found = await users.user_by_id(session, payload.id or 0)
    return [] if found is None else [found]


async def create_users(session: AsyncSession, payload: CreateUsers) -> StoredUsers:
    """Store all that are not there yet, in one statement."""
    stored = await users.insert_users_once(session, [(user.name, user.email) for user in payload.users])
    return StoredUsers(users=[StoredUser(id=user.id, is_new=user.is_new) for user in stored])
