"""Queries on users. Each says what its SQL does and returns what happened; none commits."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from sqlalchemy import BigInteger, Boolean, DateTime, Text, bindparam, column, func, insert, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from db.tables import User

_RACES = 3
"""How often a look-up may miss a row that another transaction has just committed, before we give up."""


class UserRow(NamedTuple):
    """A user as it is stored."""

    id: int
    name: str
    email: str | None
    created_at: datetime


class StoredUser(NamedTuple):
    """Where a row of a set ended: the stored user, and whether it is new."""

    id: int
    name: str
    email: str | None
    created_at: datetime
    is_new: bool


class RaceLostError(RuntimeError):
    """An e-mail was taken and free again in turn, several times. Running the job again is the cure."""

    def __init__(self) -> None:
        super().__init__("the same e-mail is being stored and deleted at the same time: run it again")


async def insert_user(session: AsyncSession, name: str, email: str | None = None) -> User:
    """Insert a user. One round trip.

    Raises:
        IntegrityError: ``users_email_key``, the e-mail is taken.
    """
    statement = insert(User).values(name=name, email=email).returning(User)
    return (await session.scalars(statement)).one()


_INSERT_ONCE = select(User, column("is_new", Boolean)).from_statement(
    text("""
    WITH inserted AS (
        INSERT INTO users (name, email)
        SELECT :name, :email WHERE NOT EXISTS (SELECT FROM users WHERE email = :email)
        ON CONFLICT (email) DO NOTHING
        RETURNING id, name, email, created_at)
    SELECT id, name, email, created_at, true AS is_new FROM inserted
    UNION ALL
    SELECT id, name, email, created_at, false FROM users WHERE email = :email
    """)
    .bindparams(bindparam("name", type_=Text), bindparam("email", type_=Text))
    .columns(User.id, User.name, User.email, User.created_at, column("is_new", Boolean))
)
"""NOT EXISTS spares an id of the sequence on each look-up; ON CONFLICT decides between simultaneous inserts."""


async def insert_user_once(session: AsyncSession, name: str, email: str) -> tuple[User, bool]:
    """Insert the user unless ``email`` is stored; return the stored row and whether it is new.

    One round trip; one more for each simultaneous insert of the same e-mail that won.

    Raises:
        RaceLostError: the row came and went between our statements, several times.
    """
    for _ in range(_RACES):
        rows = await session.execute(_INSERT_ONCE, {"name": name, "email": email})
        if found := rows.one_or_none():
            return found.User, found.is_new
    raise RaceLostError


_INSERT_MANY_ONCE = (
    text("""
    WITH input AS MATERIALIZED (
        SELECT position, name, email, row_number() OVER (PARTITION BY email ORDER BY position) AS occurrence
        FROM unnest(:names, :emails) WITH ORDINALITY AS rows (name, email, position)),
    new AS MATERIALIZED (
        SELECT position, name, email, nextval(pg_get_serial_sequence('users', 'id')) AS id
        FROM input
        WHERE email IS NULL OR occurrence = 1 AND NOT EXISTS (SELECT FROM users WHERE users.email = input.email)
        ORDER BY email, position),
    inserted AS (
        INSERT INTO users (id, name, email) OVERRIDING SYSTEM VALUE
        SELECT id, name, email FROM new ORDER BY email, position
        ON CONFLICT (email) DO NOTHING
        RETURNING id, name, email, created_at)
    SELECT input.position, coalesce(inserted.id, twin.id, users.id) AS id,
        coalesce(inserted.name, twin.name, users.name) AS name, input.email,
        coalesce(inserted.created_at, twin.created_at, users.created_at) AS created_at,
        inserted.id IS NOT NULL AS is_new
    FROM input
    LEFT JOIN new USING (position)
    LEFT JOIN inserted ON inserted.id = new.id
    LEFT JOIN inserted AS twin ON twin.email = input.email
    LEFT JOIN users ON users.email = input.email
    ORDER BY input.position
    """)
    .bindparams(bindparam("names", type_=ARRAY(Text)), bindparam("emails", type_=ARRAY(Text)))
    .columns(
        column("position", BigInteger),
        column("id", BigInteger),
        column("name", Text),
        column("email", Text),
        column("created_at", DateTime(timezone=True)),
        column("is_new", Boolean),
    )
)
"""Ids are drawn before the insert, because RETURNING promises no order: it is how a row finds its position again.
Sorted by e-mail, so that two simultaneous sets wait for each other and do not deadlock."""


async def insert_users_once(session: AsyncSession, users: Sequence[tuple[str, str | None]]) -> list[StoredUser]:
    """Insert each ``(name, email)`` unless its e-mail is stored; answer in the order given.

    One round trip for all; one more if e-mails were stored by others meanwhile. A set that has an e-mail twice stores
    its first row. Without an e-mail a row is always new.

    Raises:
        RaceLostError: a row came and went between our statements, several times.
    """
    stored: dict[int, StoredUser] = {}
    for _ in range(_RACES):
        missing = [position for position in range(len(users)) if position not in stored]
        if not missing:
            break
        parameters = {"names": [users[at][0] for at in missing], "emails": [users[at][1] for at in missing]}
        for position, *user in await session.execute(_INSERT_MANY_ONCE, parameters):
            if user[0] is not None:
                stored[missing[position - 1]] = StoredUser(*user)
    if len(stored) < len(users):
        raise RaceLostError
    return [stored[position] for position in range(len(users))]


async def user_by_id(session: AsyncSession, user_id: int) -> User | None:
    """Find a user by id. One round trip, none if the session has the user already."""
    return await session.get(User, user_id)


async def user_by_email(session: AsyncSession, email: str) -> User | None:
    """Find the user with this normalised e-mail. One round trip."""
    return (await session.scalars(select(User).where(User.email == email))).one_or_none()


async def users_by_name(session: AsyncSession, name: str, *, limit: int) -> Sequence[User]:
    """Find the users of exactly this name, oldest first, at most ``limit``. One round trip."""
    statement = select(User).where(User.name == name).order_by(User.id).limit(limit)
    return (await session.scalars(statement)).all()


async def users_by_ids(session: AsyncSession, ids: Collection[int]) -> Sequence[User]:
    """Find the users with these ids, in the order of their ids; ids that do not exist are left out. One round trip."""
    return (await session.scalars(select(User).where(User.id.in_(ids)).order_by(User.id))).all()


_USER_ROW = (User.id, User.name, User.email, User.created_at)

_FIND_MANY = {
    "id": select(*_USER_ROW).where(User.id == func.any(bindparam("values", type_=ARRAY(BigInteger)))),
    "email": select(*_USER_ROW).where(User.email == func.any(bindparam("values", type_=ARRAY(Text)))),
}


async def find_users_by(
    session: AsyncSession, what: Literal["id", "email"], values: Collection[int] | Collection[str]
) -> dict[int | str, UserRow]:
    """Find the users with these ids or e-mails; return those there are, by what was asked for. One round trip.

    Rows, not objects of the ORM, which would cost more than the query.
    """
    rows = await session.execute(_FIND_MANY[what], {"values": list(values)})
    return {getattr(row, what): UserRow(*row) for row in rows}
