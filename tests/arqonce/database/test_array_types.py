"""Connections know the arrays that our statements use, and ask the server for others."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from asyncpg.introspection import INTRO_LOOKUP_TYPES

from arqonce.database.array_types import described
from arqonce.database.asyncpg_connection import LentConnection

_ARRAYS = {
    "bool": "{t,f,NULL}",
    "bytea": r'{"\\x00ff",""}',
    "int2": "{-1,32767}",
    "int4": "{{1,2},{3,4}}",
    "int8": "{9223372036854775807}",
    "varchar": '{"a,b",NULL,"NULL"}',
    "float8": "{1.5,-Infinity}",
    "timestamp": '{"2026-02-03 04:05:06.789"}',
    "date": "{2026-02-03,infinity}",
    "timestamptz": '{"2026-02-03 04:05:06.789+02"}',
    "interval": '{"1 mon -2 days 00:00:03"}',
    "numeric": "{1.20,-3}",
    "uuid": "{00112233-4455-6677-8899-aabbccddeeff}",
    "jsonb": '{"{\\"a\\": [1]}"}',
}
"""Types of elements, and an array of each as PostgreSQL writes it."""


@pytest.fixture
async def lent(jobs_postgres_url: str) -> AsyncIterator[LentConnection]:
    """Yield a new connection as our pools have them."""
    connection = await asyncpg.connect(jobs_postgres_url, connection_class=LentConnection)
    yield connection
    await connection.close()


@pytest.fixture
async def plain(jobs_postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection that asks for all types."""
    connection = await asyncpg.connect(jobs_postgres_url)
    yield connection
    await connection.close()


@pytest.mark.parametrize("element", _ARRAYS)
async def test_a_known_array_is_what_the_server_says(
    element: str, lent: LentConnection, plain: asyncpg.Connection
) -> None:
    """And is sent and received without another statement."""
    sql = f"SELECT $1::{element}[], '{_ARRAYS[element]}'::{element}[]"
    number = await plain.fetchval("SELECT to_regtype($1)::oid::bigint", f"{element}[]")
    (told,) = (row for row in await plain.fetch(INTRO_LOOKUP_TYPES, [number]) if row["oid"] == number)
    (known,) = described([number]) or [{}]
    assert known == {name: told[name] for name in known}
    assert {"oid", "elemtype"} <= known.keys()

    value = (await plain.fetchrow(sql, None))[1]
    before = lent._protocol.queries_count
    assert tuple(await lent.fetchrow(sql, value)) == (value, value)
    assert lent._protocol.queries_count - before == 1


async def test_other_types_are_asked_for(lent: LentConnection) -> None:
    """Alone, and in one statement with a known one."""
    assert described([1001, 1_000_001]) is None
    await lent.execute("CREATE TYPE pg_temp.mood AS ENUM ('calm', 'busy')")
    row = await lent.fetchrow("SELECT '{calm}'::pg_temp.mood[], $1::int8[], '[1,3)'::int4range", [7])
    assert row[:2] == (["calm"], [7])
    assert row[2].upper == 3
