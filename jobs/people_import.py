"""Imports people through the queue, in jobs of many users each, with a bounded number of jobs at a time."""

import hashlib
import itertools
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import timedelta

from arqonce import JobClient, JobFailedError, JobHandle
from jobs.payloads import CreateUsers, StoredUsers
from jobs.people_csv import Person, Refused

_CHUNK = 500
"""People in one job: its transaction takes about 10 ms."""

_TRIES = 10
"""Most failed imports of the same people to skip by using another key, while their results are kept."""

_AHEAD = 16
"""Most jobs enqueued before the first has ended: a huge file fills neither the memory nor the queue."""


@dataclass(frozen=True)
class Imported:
    """The outcome of some lines of the file."""

    created: int = 0
    existing: int = 0
    refused: tuple[Refused, ...] = ()

    @property
    def lines(self) -> int:
        """The number of lines."""
        return self.created + self.existing + len(self.refused)


@dataclass(frozen=True)
class _Chunk:
    people: list[Person]
    payload: CreateUsers
    key: str
    handle: JobHandle[StoredUsers]


async def import_people(
    client: JobClient,
    rows: Iterable[Person | Refused],
    *,
    timeout: timedelta,  # noqa: ASYNC109 - for each result
) -> AsyncIterator[Imported]:
    """Store the people and yield the outcome, part by part, in the order of the file.

    The key of each job is the hash of its people. An interrupted import that is started again continues where it
    stopped, and counts results of the first run as ``existing``.

    Raises:
        TimeoutError: a job had no result within ``timeout``.
        QueueUnavailableError: Redis cannot be reached.
    """
    waiting: deque[_Chunk] = deque()
    for some in _chunks(rows):
        refused = tuple(row for row in some if isinstance(row, Refused))
        people = [row for row in some if isinstance(row, Person)]
        yield Imported(refused=refused)
        if people:
            waiting.append(await _enqueue(client, people))
        if len(waiting) >= _AHEAD:
            yield await _finish(client, waiting.popleft(), timeout)
    while waiting:
        yield await _finish(client, waiting.popleft(), timeout)


def _chunks(rows: Iterable[Person | Refused]) -> Iterable[list[Person | Refused]]:
    iterator = iter(rows)
    while some := list(itertools.islice(iterator, _CHUNK)):
        yield some


async def _enqueue(client: JobClient, people: list[Person]) -> _Chunk:
    payload = CreateUsers(users=[person.user for person in people])
    # With the line number: equal people on two lines are different people.
    content = f"{people[0].line}:{payload.model_dump_json()}"
    key = "import-" + hashlib.sha256(content.encode()).hexdigest()
    return _Chunk(people, payload, key, await client.enqueue(payload, key=key))


async def _finish(client: JobClient, chunk: _Chunk, timeout: timedelta) -> Imported:  # noqa: ASYNC109 - passed on
    handle, tries = chunk.handle, 1
    while True:
        try:
            stored = (await handle.result(timeout=timeout)).users
        except JobFailedError as error:
            if handle.is_new or tries == _TRIES:
                return Imported(refused=tuple(_unstored(person, error) for person in chunk.people))
            # The key still holds the failure of an earlier import: try again under a new key.
            handle = await client.enqueue(chunk.payload, key=f"{chunk.key}-{tries}")
            tries += 1
        else:
            created = sum(user.is_new for user in stored) if handle.is_new else 0
            return Imported(created=created, existing=len(stored) - created)


def _unstored(person: Person, error: JobFailedError) -> Refused:
    return Refused(person.line, str(error), f"{person.user.name},{person.user.email or ''}")
