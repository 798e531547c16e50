"""Queries on users. Each is named after its SQL and returns the outcome; none commits."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import BigInteger, DateTime, Text, bindparam, column, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import fetch_by_driver
from db.tables import User

_RACES = 3
"""Most attempts of a query that misses a row which another transaction has just committed or deleted."""


class UserRow(NamedTuple):
    """A stored user."""

    id: int
    name: str
    email: str | None
    created_at: datetime


class RaceLostError(RuntimeError):
    """An e-mail was alternately taken and free, several times. Run the job again."""

    def __init__(self) -> None:
        super().__init__("the same e-mail is being stored and deleted at the same time: run it again")


_INSERT = "INSERT INTO users (name, email) VALUES ($1, $2) RETURNING id, created_at"


async def insert_user(session: AsyncSession, name: str, email: str | None = None) -> UserRow:
    """Insert a user. One round trip.

    Raises:
        IntegrityError: the e-mail is taken (``users_email_key``).
    """
    [(user_id, created_at)] = await fetch_by_driver(session, _INSERT, name, email)
    return UserRow(user_id, name, email, created_at)


_INSERT_ONCE = """
    WITH inserted AS (
        INSERT INTO users (name, email)
        SELECT $1, $2 WHERE NOT EXISTS (SELECT FROM users WHERE email = $2)
        ON CONFLICT (email) DO NOTHING
        RETURNING id, name, email, created_at)
    SELECT id, name, email, created_at, true AS is_new FROM inserted
    UNION ALL
    SELECT id, name, email, created_at, false FROM users WHERE email = $2
"""
"""NOT EXISTS saves an id of the sequence if the e-mail is stored; ON CONFLICT resolves concurrent inserts."""


async def insert_user_once(session: AsyncSession, name: str, email: str) -> tuple[UserRow, bool]:
    """Insert the user unless ``email`` is stored; return the stored row, and whether it is new.

    The name of a stored row may differ. One round trip; one more for each concurrent insert of this e-mail that won.

    Raises:
        RaceLostError: the row was inserted and deleted between the statements, several times.
    """
    for _ in range(_RACES):
        if rows := await fetch_by_driver(session, _INSERT_ONCE, name, email):
            [(*user, is_new)] = rows
            return UserRow(*user), is_new
    raise RaceLostError


_INSERT_NEW = (
    text("""
    WITH new AS MATERIALIZED (
        SELECT position, name, email, nextval((SELECT pg_get_serial_sequence('users', 'id')::regclass)) AS id
        FROM unnest(:names, :emails) WITH ORDINALITY AS rows (name, email, position)
        WHERE email IS NULL OR (SELECT true FROM users WHERE users.email = rows.email) IS NULL
        ORDER BY email, position),
    inserted AS (
        INSERT INTO users (id, name, email) OVERRIDING SYSTEM VALUE
        SELECT id, name, email FROM new ORDER BY email, position
        ON CONFLICT (email) DO NOTHING
        RETURNING id, created_at)
    SELECT drawn.positions, drawn.ids, stored.ids AS stored, stored.created_at
    FROM (SELECT array_agg(position) AS positions, array_agg(id) AS ids FROM new) AS drawn,
        (SELECT array_agg(id) AS ids, min(created_at) AS created_at FROM inserted) AS stored
    """)
    .bindparams(bindparam("names", type_=ARRAY(Text)), bindparam("emails", type_=ARRAY(Text)))
    .columns(
        column("positions", ARRAY(BigInteger)),
        column("ids", ARRAY(BigInteger)),
        column("stored", ARRAY(BigInteger)),
        column("created_at", DateTime(timezone=True)),
    )
)
"""Ids are drawn before the insert, because RETURNING guarantees no order: the id links a row to its position.
Sorted by e-mail, so that two concurrent sets wait for each other instead of deadlocking.

No join: a cached generic plan would use nested loops. Arrays: hundreds of rows cost the driver more time."""


async def insert_new_users(session: AsyncSession, users: Sequence[tuple[str, str | None]]) -> dict[int, UserRow]:
    """Insert each ``(name, email)`` unless its e-mail is stored; return the new rows by their position. One round trip.

    Of rows with the same e-mail, the first is stored. A row without an e-mail is always new.
    """
    parameters = {"names": [name for name, _ in users], "emails": [email for _, email in users]}
    found = (await session.execute(_INSERT_NEW, parameters)).one()
    stored = set(found.stored or ())
    drawn = zip(found.positions or (), found.ids or (), strict=True)
    return {
        at - 1: UserRow(id_, users[at - 1][0], users[at - 1][1], found.created_at) for at, id_ in drawn if id_ in stored
    }


async def insert_users_once(
    session: AsyncSession, users: Sequence[tuple[str, str | None]]
) -> list[tuple[UserRow, bool]]:
    """Insert each ``(name, email)`` unless its e-mail is stored; return the stored row of each, and whether it is new.

    One round trip for all, two if any e-mail is stored; two more if e-mails were deleted meanwhile. If an e-mail occurs
    twice, its first row is stored.

    Raises:
        RaceLostError: a row was inserted and deleted between the statements, several times.
    """
    stored: dict[int, tuple[UserRow, bool]] = {}
    for _ in range(_RACES):
        missing = [position for position in range(len(users)) if position not in stored]
        if not missing:
            break
        new = await insert_new_users(session, [users[at] for at in missing])
        stored |= {missing[at]: (row, True) for at, row in new.items()}
        emails = {at: email for at in missing if at not in stored and (email := users[at][1]) is not None}
        found = await rows_by_emails(session, set(emails.values()))
        stored |= {at: (found[email], False) for at, email in emails.items() if email in found}
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
    """Find the users with exactly this name, oldest first, at most ``limit``. One round trip."""
    statement = select(User).where(User.name == name).order_by(User.id).limit(limit)
    return (await session.scalars(statement)).all()


_ROW = (User.id, User.name, User.email, User.created_at)
_BY_IDS = select(*_ROW).where(User.id == func.any(bindparam("ids", type_=ARRAY(BigInteger))))
_BY_EMAILS = select(*_ROW).where(User.email == func.any(bindparam("emails", type_=ARRAY(Text))))


async def rows_by_ids(session: AsyncSession, ids: Collection[int]) -> dict[int, UserRow]:
    """Find the users with these ids; return those found, by id. One round trip, none without ids.

    Rows, not ORM objects: these would cost more time than the query.
    """
    rows = await session.execute(_BY_IDS, {"ids": list(ids)}) if ids else ()
    return {row.id: UserRow(*row) for row in rows}


async def rows_by_emails(session: AsyncSession, emails: Collection[str]) -> dict[str, UserRow]:
    """Find the users with these normalised e-mails; return those found, by e-mail. One round trip, none without any."""
    rows = await session.execute(_BY_EMAILS, {"emails": list(emails)}) if emails else ()
    return {row.email: UserRow(*row) for row in rows}
