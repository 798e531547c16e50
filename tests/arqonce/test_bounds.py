"""Each bound holds alike on every way in: what one refuses no other accepts, each with one error that has its cause."""

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, NamedTuple, NewType

import pytest
from psycopg import connect
from pydantic import create_model
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from typer.testing import CliRunner
from typing_extensions import TypeAliasType

from arqonce import (
    InvalidMessageError,
    JobClient,
    JobSpec,
    Payload,
    Registry,
    Result,
    SyncJobClient,
    WorkerSettings,
    enqueue_in,
    enqueue_in_sync,
)
from arqonce.client.requests import Request, at_once
from arqonce.commands.enqueue import build_enqueue_app
from arqonce.ledger.dead_jobs import DeadFilter, dead_jobs
from arqonce.wire.bounds import MAX_BYTES, MOST_DIGITS, MOST_LEVELS, why_unfit
from arqonce.wire.codec import encode_result
from arqonce.wire.request import write_job
from tests.arqonce.conftest import BuildWorker, build_recording_worker
from tests.promised import where
from web.settings import WebSettings

Sessions = async_sessionmaker[AsyncSession]


class Note(Payload[Result]):
    """Anything that JSON can say, and a text."""

    job_name: ClassVar[str] = "note"
    items: list[Any] | None = None
    text: str = ""


async def note(session: AsyncSession, payload: Note) -> Result:  # noqa: ARG001 - every handler gets one
    """Do nothing."""
    return Result()


REGISTRY = Registry(JobSpec(Note, note))


def _nested(levels: int) -> list[Any]:
    value: list[Any] = [0]
    for _ in range(levels - 1):
        value = [value]
    return value


_ENVELOPE = len('{"t":null,"f":"note","a":[],"k":{"text":""},"et":1764522235000}')


class Row(NamedTuple):
    """What is enqueued, and why it is refused."""

    fields: dict[str, Any]
    problem: str | None = None
    options: dict[str, Any] = {}  # noqa: RUF012 - not changed


ROWS = {
    "all of Unicode": Row({"text": "\x01\x7f\uffff\U0001f600", "items": [{"\u2028": "\ufdd0"}]}),
    "the letters of an escape": Row({"text": "a\\u0000"}),
    "a zero": Row({"text": "a\0"}, r"text has the character U\+0000"),
    "a zero inside": Row({"items": [{"a": ["\0"]}]}, r"items has the character U\+0000"),
    "a zero in a name": Row({"items": [{"\0": 1}]}, r"items has the character U\+0000"),
    "half a pair": Row({"text": "a\udc00"}, "text has half of a surrogate pair|surrogate in hex"),
    "half a pair inside": Row({"items": [["\ud800"]]}, "items has half of a surrogate pair|hex escape"),
    "half a pair in a name": Row({"items": [{"\ud800": 1}]}, "items has half of a surrogate pair|hex escape"),
    "deep": Row({"items": _nested(MOST_LEVELS)}),
    "too deep": Row({"items": _nested(MOST_LEVELS + 1)}, f"more than {MOST_LEVELS} lists and objects"),
    "a large integer": Row({"items": [2**64, -(10 ** (MOST_DIGITS - 1))]}),
    "too many digits": Row({"items": [10**MOST_DIGITS]}, "4,300 digits|4300 digits|out of range"),
    "a large float": Row({"items": [1.7976931348623157e308, 5e-324]}),
    "NaN": Row({"items": [float("nan")]}, "items is infinite or NaN|not JSON in UTF-8"),
    "infinite": Row({"items": [{"a": float("-inf")}]}, "items is infinite or NaN|not JSON in UTF-8"),
    "large": Row({"text": "x" * (MAX_BYTES - _ENVELOPE)}),
    "too large": Row({"text": "x" * (MAX_BYTES - _ENVELOPE + 1)}, "1,048,577 bytes, more than the 1,048,576 allowed"),
    "a long key": Row({}, options={"key": "k" * 200}),
    "too long a key": Row({}, "1 to 200 printable ASCII", {"key": "k" * 201}),
    "no key": Row({}, "1 to 200 printable ASCII", {"key": ""}),
    "a key with a space": Row({}, "1 to 200 printable ASCII", {"key": "a b"}),
    "a key with an umlaut": Row({}, "1 to 200 printable ASCII", {"key": "ä"}),
    "far": Row({}, options={"delay": timedelta(days=2_900_000)}),
    "too far": Row({}, "after the year 9999", {"delay": timedelta(days=2_920_000)}),
    "a long queue": Row({}, options={"queue": "q" * 200}),
    "too long a queue": Row({}, "queue's name must be 1 to 200", {"queue": "q" * 201}),
    "no queue": Row({}, "queue's name must be 1 to 200", {"queue": ""}),
    "a queue with a line break": Row({}, "queue's name must be 1 to 200", {"queue": "a\nb"}),
}
EACH = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


@contextmanager
def _verdict(row: Row) -> Iterator[None]:
    """Expect that the row is accepted, or is refused with its problem."""
    if row.problem is None:
        yield
        return
    with pytest.raises(ValueError, match=row.problem) as caught:
        yield
    assert len(str(caught.value).splitlines()) == 1


@EACH
async def test_both_clients_and_both_outboxes_decide_alike(
    redis: Redis, sessions: Sessions, valkey_url: str, postgres_url: str, row: Row
) -> None:
    """And so do the calls that enqueue many."""
    assert redis is not None
    options = dict(row.options)
    queue, keys = options.pop("queue", "arq:queue"), [options["key"]] if "key" in options else None
    many = {"keys": keys} | {name: value for name, value in options.items() if name != "key"}

    def without_loop() -> None:
        with _verdict(row), SyncJobClient(valkey_url, queue=queue) as client:
            client.enqueue(Note(**row.fields), **options)
        with _verdict(row), SyncJobClient(valkey_url, queue=queue) as client:
            client.enqueue_many([Note(**row.fields)], **many)
        with _verdict(row), connect(postgres_url) as connection:
            enqueue_in_sync(connection, Note(**row.fields), queue=queue, **options)

    with _verdict(row):
        async with JobClient(valkey_url, queue=queue) as client:
            await client.enqueue(Note(**row.fields), **options)
    with _verdict(row):
        async with JobClient(valkey_url, queue=queue) as client:
            await client.enqueue_many([Note(**row.fields)], **many)
    with _verdict(row):
        async with sessions.begin() as session:
            await enqueue_in(session, Note(**row.fields), queue=queue, **options)
    await asyncio.to_thread(without_loop)


@pytest.mark.parametrize("row", [pytest.param(row, id=name) for name, row in ROWS.items() if name != "no queue"])
def test_the_command_line_decides_alike(row: Row, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A field that may be a list is JSON; an empty setting is none."""
    monkeypatch.setenv("REDIS_URL", valkey_url)
    monkeypatch.setenv("WORKER_QUEUE", row.options.get("queue", "arq:queue"))
    arguments = [f"--{name}={_dump(value) if name == 'items' else value}" for name, value in row.fields.items()]
    arguments += [f"--key={row.options['key']}"] if "key" in row.options else []
    arguments += [f"--delay={row.options['delay'].days}d"] if "delay" in row.options else []

    other = Registry(JobSpec(Note, note), JobSpec(_Other, note))  # typer makes a group of two
    done = CliRunner().invoke(build_enqueue_app(other), ["note", *arguments])

    assert (done.exit_code == 0) == (row.problem is None), done.output
    with _verdict(row):
        if row.problem is not None:
            raise ValueError(str(done.exception))


@dataclass
class Point:
    """A dataclass inside."""

    x: int


Points = NewType("Points", list[Point])
Lines = TypeAliasType("Lines", list[str])


class Structured(Payload[Result]):
    """Fields that only JSON can say."""

    job_name: ClassVar[str] = "structured"
    point: Point | None = None
    points: Points = Points([])
    sizes: Mapping[str, int] = {}
    names: Sequence[str] = ()
    lines: Lines | None = None


async def test_the_command_line_takes_every_structure_as_json(
    redis: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dataclass, a mapping or a sequence whatever it is called."""
    fields = {"point": {"x": 1}, "points": [{"x": 2}], "sizes": {"a": 1}, "names": ["a", "b"], "lines": ["c"]}
    monkeypatch.setenv("REDIS_URL", valkey_url)
    arguments = [f"--{name}={json.dumps(value)}" for name, value in fields.items()]
    app = build_enqueue_app(Registry(JobSpec(Structured, note), JobSpec(_Other, note)))

    done = await asyncio.to_thread(CliRunner().invoke, app, ["structured", "--key=s", *arguments])

    assert done.exit_code == 0, done.output
    assert json.loads(await redis.get("arq:job:s"))["k"] == fields


class _Other(Payload[Result]):
    job_name: ClassVar[str] = "other"


async def test_raw_messages_are_decided_alike(redis: Redis, sessions: Sessions, build: BuildWorker) -> None:
    """What another language has written runs, or becomes a dead letter with the same reason."""
    rows = {name: row for name, row in ROWS.items() if not {"delay", "queue"} & row.options.keys()}
    ids = {name: row.options.get("key", f"row{number}") for number, (name, row) in enumerate(rows.items())}
    for name, row in rows.items():
        message: dict[str, Any] = {"t": None, "f": "note", "a": [], "k": row.fields, "et": 1_764_522_235_000}
        await redis.set(f"arq:job:{ids[name]}", _dump(message))
        await redis.zadd("arq:queue", {ids[name]: 1})

    await (await build_recording_worker(build, REGISTRY, sessions)).async_run()

    async with sessions() as session:
        letters = {letter.job_id: letter for letter in await dead_jobs(session, DeadFilter(), limit=99)}
    good = [ids[name] for name, row in rows.items() if row.problem is None]
    assert await where(sessions, *good) == {job_id: ["receipts"] for job_id in good}
    bad = {name: row.problem for name, row in rows.items() if row.problem is not None}
    assert len(letters) == len(bad)
    for name, problem in bad.items():
        by_id = letters.get(ids[name])
        found = [by_id] if by_id else [letter for letter in letters.values() if letter.job_id.startswith("hostile-")]
        assert found, name
        for letter in found:
            assert (letter.reason, bool(re.search(problem, letter.explanation))) == ("malformed_message", True), name


def _dump(value: object) -> str:
    """Write JSON as other languages do, integers of any length and halves of pairs included."""
    known = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return json.dumps(value, separators=(",", ":"))
    finally:
        sys.set_int_max_str_digits(known)


@pytest.mark.parametrize(
    "make", [lambda v: [v], lambda v: (v,), lambda v: {v}, lambda v: {"a": v}, lambda v: Note(text=v)]
)
def test_every_kind_of_container_is_searched(make: Callable[[str], object]) -> None:
    """Models and sets included."""
    assert why_unfit(make("fine")) is None
    assert "U+0000" in (why_unfit([make("a\0")]) or "")


@pytest.mark.parametrize(
    "text",
    [("1" * MOST_DIGITS + "x") * 240, "\\" * 500_000, "\\u0000" * 140_000, "[" * 1_000_000],
    ids=["digits", "backslashes", "escapes", "brackets"],
)
def test_the_largest_text_is_judged_at_once(text: str) -> None:
    """Each number is looked at once: ten seconds, otherwise, in which nothing else runs."""
    began = time.process_time()
    write_job(Note(text=text), enqueued_ms=1)
    encode_result({"text": text})

    assert time.process_time() - began < 2


@pytest.mark.parametrize("name", ["n" * 201, "a\0", "two\nlines", "\ud800"])
def test_a_job_has_a_name_that_every_way_can_carry(name: str) -> None:
    """Refused at registration, and of a producer that has no registry."""
    make: Any = create_model  # a type checker would read a class
    kind = make("Kind", __base__=Payload[Result], job_name=(ClassVar[str], name))

    with pytest.raises(TypeError, match="job_name must be 1 to 200 printable characters"):
        JobSpec(kind, note)
    with pytest.raises(TypeError, match="former_names must be 1 to 200 printable characters"):
        JobSpec(Note, note, former_names=(name,))
    with pytest.raises(InvalidMessageError, match="job_name must be 1 to 200 printable characters"):
        at_once(Request.steps([kind()]))


@pytest.mark.parametrize("queue", ["q" * 201, "a\nb", "fine,a\0b"])
def test_settings_name_queues_alike(queue: str) -> None:
    """Before anything connects."""
    with pytest.raises(ValueError, match="queue's name must be 1 to 200"):
        WorkerSettings.model_validate({"queue": queue})
    with pytest.raises(ValueError, match="queue's name must be 1 to 200"):
        WebSettings.model_validate({"queue": queue})
