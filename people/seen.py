"""Remembers which e-mails and names a file has had. Its memory is bounded; the rest is in a temporary file."""

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

_CACHE_KIB = 16 * 1024
"""Memory of SQLite, in KiB. A million e-mails take 40 MiB, of which the rest is on the disk."""


class Seen:
    """The e-mails and names of the rows so far: only their hashes, because they are personal data."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("CREATE TABLE emails (hash BLOB PRIMARY KEY, line INTEGER) WITHOUT ROWID")
        connection.execute("CREATE TABLE names (hash BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID")

    def first_line(self, email: str, line: int) -> int:
        """Return the line in which the e-mail stood first: ``line``, if it is new."""
        insert = "INSERT INTO emails VALUES (?, ?) ON CONFLICT DO NOTHING"
        if self._connection.execute(insert, (_hash(email), line)).rowcount:
            return line
        return self._number("SELECT line FROM emails WHERE hash = ?", _hash(email))

    def count(self, name: str) -> int:
        """Count the name once more, and return how often it was counted."""
        insert = "INSERT INTO names VALUES (?, 1) ON CONFLICT DO UPDATE SET number = number + 1 RETURNING number"
        return self._number(insert, _hash(name))

    def _number(self, statement: str, key: bytes) -> int:
        return int(self._connection.execute(statement, (key,)).fetchone()[0])


@contextmanager
def open_seen() -> Iterator[Seen]:
    """Open an empty memory. SQLite removes its temporary file at once, so that nothing of it stays."""
    with closing(sqlite3.connect("", isolation_level=None)) as connection:
        for pragma in (f"cache_size = -{_CACHE_KIB}", "journal_mode = OFF", "synchronous = OFF"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        yield Seen(connection)


def _hash(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
