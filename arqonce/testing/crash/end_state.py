"""Reads what a job has left in PostgreSQL, in Redis and in its folder, in a form in which two runs can be compared.

Leaves out what differs between any two runs: times, counters of attempts, the numbers of ids, and the hashes of
follow-ups, whose payloads may contain ids.
"""

import re
from collections.abc import AsyncIterator, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic_core import from_json
from redis.asyncio import Redis
from sqlalchemy import Date, DateTime, Integer, Interval, Table, Time, Uuid, select

from arqonce.testing.crash.worlds import World

_COUNTERS = {
    "arqonce.receipts": frozenset({"attempt"}),
    "arqonce.dead_jobs": frozenset({"attempts"}),
    "arqonce.outbox": frozenset({"dispatches", "epoch"}),
}
"""Columns of the ledger that count attempts."""

_WIRE_FIELDS = frozenset({"t", "et", "st", "ft"})
"""Fields of arq's messages that hold the attempt and times."""

_OF_WORKERS = (
    "health-check",
    "epoch",
    ":watcher",
    ":baton",
    ":deputy",
    "arqonce:worker",
    "arqonce:alarm",
    "arqonce:trend:",
    "arqonce:pauses:",
    "arqonce:limits:",
)
"""Keys in Redis whose names contain one of these belong to workers, not to jobs."""

_OF_OPERATORS = frozenset({"arqonce.attempts", "arqonce.redis_losses"})
"""Tables of what has happened on the way, which a crash may change."""

_OF_JOBS = ("receipts", "dead_jobs", "outbox")
"""Tables whose job ids may be random: those of the follow-ups of a batch."""

_TAG = 8
"""Hexadecimal digits of a request's hash that Redis keeps with its result."""

_GENERATED = re.compile("[0-9a-f]{32}")

State = dict[str, Any]
"""Contents by place: ``table users``, ``table arqonce.receipts``, ``redis arq:queue``, ``file mail.txt``."""

Row = dict[str, Any]


async def read_state(world: World, ignore: Collection[str], *, keys: Collection[str]) -> State:
    """Return the state of the world; ``ignore`` names columns and JSON fields that may differ.

    ``keys`` are the ids of the jobs that were enqueued; all others are follow-ups.
    """
    rows = await _read_tables(world)
    times = {column.name for table in rows for column in table.columns if isinstance(column.type, _TIMES)}
    view = _View(frozenset(times) | set(ignore), {})
    tables = {table: [view.of_row(world.name_of(table), row) for row in found] for table, found in rows.items()}
    view = _View(view.ignored, _labels(tables) | _hashes(tables, keys))
    state: State = {
        f"table {world.name_of(table)}": sorted(map(view.of, found), key=str) for table, found in tables.items()
    }
    state |= {f"redis {view.of_key(key)}": view.of(value) async for key, value in _read_redis(world.redis)}
    return state | {f"file {name}": text for name, text in _read_files(world.directory)}


_TIMES = (DateTime, Date, Time, Interval)


def differences(clean: State, crashed: State) -> list[str]:
    """Describe the places in which the state after a crash differs from that of the clean run."""
    return [
        f"{place}\n  clean run:   {clean.get(place)!r}\n  after crash: {crashed.get(place)!r}"
        for place in sorted(clean.keys() | crashed.keys())
        if clean.get(place) != crashed.get(place)
    ]


@dataclass(frozen=True)
class _View:
    """Removes ignored fields, decodes messages, and replaces ids by labels."""

    ignored: Collection[str]
    labels: dict[str, str]

    def of_row(self, table: str, row: Row) -> Row:
        counters = _COUNTERS.get(table, frozenset())
        return {name: self.of(value) for name, value in row.items() if name not in counters | set(self.ignored)}

    def of(self, value: Any) -> Any:  # noqa: ANN401 - whatever a column or a message holds
        match value:
            case dict():
                return {name: self.of(item) for name, item in value.items() if name not in self.ignored}
            case list():
                return [self.of(item) for item in value]
            case bytes():
                return self.labels.get(value.hex()) or self._of_message(value)
            case UUID() | str() | int() if str(value) in self.labels:
                return self.labels[str(value)]
            case _:
                return value

    def of_key(self, key: str) -> str:
        """Replace an id at the end of a key."""
        prefix, _, job_id = key.rpartition(":")
        return f"{prefix}:{self.labels[job_id]}" if job_id in self.labels else key

    def _of_message(self, value: bytes) -> Any:  # noqa: ANN401 - whatever the message is
        try:
            message = from_json(value)
        except ValueError:
            return value
        if isinstance(message, dict) and "f" in message:
            message = {name: item for name, item in message.items() if name not in _WIRE_FIELDS}
        return self.of(message)


def _labels(tables: dict[Table, list[Row]]) -> dict[str, str]:
    """Label each generated id by the order of its row's content, because numbers have gaps after a rollback."""
    labels: dict[str, str] = {}
    for table, rows in tables.items():
        for key in (column.name for column in table.primary_key if isinstance(column.type, Integer | Uuid)):
            ordered = sorted(rows, key=lambda row: (str({**row, key: None}), str(row[key])))
            labels |= {str(row[key]): f"{table.name}#{number}" for number, row in enumerate(ordered, start=1)}
    for table, rows in tables.items():
        if table.name in _OF_JOBS:
            made = [row for row in rows if _GENERATED.fullmatch(row["job_id"])]
            ordered = sorted(made, key=lambda row: str({**row, "job_id": None}))
            labels |= {row["job_id"]: f"{table.name}#{number}" for number, row in enumerate(ordered, start=1)}
    return labels


def _hashes(tables: dict[Table, list[Row]], keys: Collection[str]) -> dict[str, str]:
    """Label the hashes of follow-ups' requests, and the tags that Redis has of them, by the kind of job."""
    rows = [row for table, found in tables.items() if table.name in _OF_JOBS for row in found]
    promised = [row for row in rows if row["job_id"].partition("~conflict~")[0] not in keys and row["request_hash"]]
    return {text: f"a {row['job_name']}" for row in promised for text in _forms(row["request_hash"].hex())}


def _forms(digest: str) -> tuple[str, str]:
    return digest, digest[:_TAG]


async def _read_tables(world: World) -> dict[Table, list[Row]]:
    async with world.engine.connect() as connection:
        return {
            table: [dict(row) for row in (await connection.execute(select(table))).mappings()]
            for table in world.tables.sorted_tables
            if world.name_of(table) not in _OF_OPERATORS
        }


async def _read_redis(redis: Redis) -> AsyncIterator[tuple[str, Any]]:
    async for key in redis.scan_iter():
        name = key.decode("utf-8", "replace")
        if any(part in name for part in _OF_WORKERS):
            continue
        match await redis.type(key):
            case b"string":
                yield name, await redis.get(key)
            case b"zset":
                yield name, await redis.zrange(key, 0, -1)
            case kind:
                yield name, kind  # only its existence is compared


def _read_files(directory: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(directory.rglob("*")):
        if file.is_file():
            yield str(file.relative_to(directory)), file.read_text(errors="replace")
