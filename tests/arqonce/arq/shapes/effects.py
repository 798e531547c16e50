"""What the functions of the shapes have done: rows in a file, written by synchronous code while the loop waits."""

import os
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path

from arq.connections import RedisSettings

REDIS = RedisSettings.from_dsn(os.environ.get("SHAPES_REDIS", "redis://127.0.0.1:6379"))

_FILE = Path(os.environ.get("SHAPES_EFFECTS", "effects.sqlite"))


def create_effects(file: Path) -> None:
    """Make the table."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE effects (number INTEGER PRIMARY KEY, job TEXT, what TEXT)")


def note(job: str, what: str) -> None:
    """Store one effect of a job."""
    with closing(sqlite3.connect(_FILE, timeout=10)) as connection, connection:
        connection.execute("PRAGMA synchronous = OFF")  # a killed process loses nothing that it has committed
        connection.execute("INSERT INTO effects (job, what) VALUES (?, ?)", (job, what))


def read_effects(file: Path) -> dict[str, list[str]]:
    """Return the effects of each job in their order."""
    found: dict[str, list[str]] = defaultdict(list)
    with closing(sqlite3.connect(file, timeout=10)) as connection:
        for job, what in connection.execute("SELECT job, what FROM effects ORDER BY number"):
            found[job].append(what)
    return dict(found)
