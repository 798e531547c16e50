"""What a migration does with addresses that people have stored before."""

import asyncio
import re
from collections.abc import Iterator
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr, TypeAdapter

from arqonce import DatabaseSettings
from arqonce.database.migrate import upgrade_schema
from db.tables import SCHEMA
from jobs.fields import EmailAddress

_EMAIL: TypeAdapter[str] = TypeAdapter(EmailAddress)

STORED = {
    1: "jane@xn--bcher-kva.example",
    2: "joe@xn--fa-hia.example",
    3: "joe@faß.example",
    4: "plain@example.org",
    5: "\uff4aim@example.org",
    6: "jo@xn--a.example",
    7: "jane\u200b@example.org",
    8: "jane@example\u3164.org",
    9: "i\u0307lker@example.org",
    10: "\u03c3\u03c3@example.org",
    11: "jo\ufe0f@example.org",
    12: "jane@\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.com",
}

FORMS = {1: "jane@bücher.example", 5: "jim@example.org", 9: "ilker@example.org", 10: "\u03c3\u03c2@example.org"}


async def _execute(url: str, statement: str, *values: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()


@pytest.fixture
def before(postgres_url: str) -> Iterator[str]:
    """Make a database of the revision before."""
    name = f"forms_{uuid4().hex}"
    url = f"{postgres_url.rpartition('/')[0]}/{name}"
    asyncio.run(_execute(postgres_url, f"CREATE DATABASE {name}"))
    upgrade_schema(DatabaseSettings(url=SecretStr(url)), SCHEMA, "0004")
    yield url
    asyncio.run(_execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


def test_addresses_get_their_form_and_equal_ones_are_told(before: str, capfd: pytest.CaptureFixture[str]) -> None:
    """By the ids of the users, not by their addresses; nothing of them is changed."""
    insert = "INSERT INTO users (name, email) SELECT 'Jane', email FROM unnest(string_to_array($1, ' ')) AS email"
    asyncio.run(_execute(before, insert, " ".join(STORED.values())))

    upgrade_schema(DatabaseSettings(url=SecretStr(before)), SCHEMA)
    found = asyncio.run(_execute(before, "SELECT id, email FROM users ORDER BY id"))
    told = capfd.readouterr().err

    assert {row["id"]: row["email"] for row in found} == STORED | FORMS
    assert re.search(r"1 users have the same e-mail address in two forms, .*: ids 2 and 3\n", told)
    assert re.search(r"4 users have an e-mail address that is refused since, .*: ids 6, 7, 8, 11\n", told)
    assert "@" not in told


@pytest.mark.parametrize("user", STORED.keys() - {2, 6, 7, 8, 11})
def test_the_migration_gives_the_form_that_addresses_get_today(user: int) -> None:
    """Or nobody would find the user."""
    assert _EMAIL.validate_python(STORED[user]) == FORMS.get(user, STORED[user])
