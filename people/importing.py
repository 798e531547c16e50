"""Imports people through the queue, in the order of the file, with a bounded number of jobs at a time."""

import hashlib
import itertools
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from arqonce import JobClient, JobFailedError, JobHandle, Payload
from jobs.payloads import CreateUser, CreateUsers, StoredUsers
from people.rows import Person, Refused

_CHUNK = 500
"""Rows that are enqueued together. People with an e-mail are one job, whose transaction takes about 10 ms."""

_TRIES = 10
"""Most failed imports of the same people to skip by using another key, while their results are kept."""

_AHEAD = 16
"""Most chunks enqueued before the first has ended: a huge file fills neither the memory nor the queue."""


@dataclass(frozen=True)
class Imported:
    """The outcome of some rows of the file."""

    created: int = 0
    existing: int = 0
    refused: tuple[Refused, ...] = ()

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.created + self.existing + len(self.refused)


@dataclass(frozen=True)
class _Job:
    people: list[Person]
    payload: Payload[Any]
    key: str
    handle: JobHandle[Any]
    """Its result is ``StoredUsers`` or, of one person without an e-mail, ``UserView``."""


async def import_people(
    client: JobClient,
    rows: Iterable[Person | Refused],
    *,
    timeout: timedelta,  # noqa: ASYNC109 - for each result
) -> AsyncIterator[Imported]:
    """Store the people and yield the outcome, part by part.

    People with an e-mail are stored many at a time; their e-mail says who is stored already, wherever they stand in
    the file. Each person without one is a job of its own, whose key is the name, and which of the rows with this name
    it is: the second row is another person than the first, but in any file the same as the second row of another
    file. An interrupted import that is started again continues where it stopped, and counts results of the first run
    as ``existing``.

    Raises:
        TimeoutError: a job had no result within ``timeout``.
        QueueUnavailableError: Redis cannot be reached.
    """
    waiting: deque[list[_Job]] = deque()
    for some in _chunks(rows):
        yield Imported(refused=tuple(row for row in some if isinstance(row, Refused)))
        waiting.append(await _enqueue(client, [row for row in some if isinstance(row, Person)]))
        if len(waiting) >= _AHEAD:
            yield await _finish(client, waiting.popleft(), timeout)
    while waiting:
        yield await _finish(client, waiting.popleft(), timeout)


def _chunks(rows: Iterable[Person | Refused]) -> Iterable[list[Person | Refused]]:
    iterator = iter(rows)
    while some := list(itertools.islice(iterator, _CHUNK)):
        yield some


async def _enqueue(client: JobClient, people: list[Person]) -> list[_Job]:
    jobs = []
    if known := [person for person in people if person.user.email is not None]:
        payload = CreateUsers(users=[person.user for person in known])
        key = _key(payload.model_dump_json())
        jobs.append(_Job(known, payload, key, await client.enqueue(payload, key=key)))
    if others := [person for person in people if person.user.email is None]:
        payloads = [CreateUser(name=person.user.name) for person in others]
        keys = [_key(f"{person.number}:{person.user.name}") for person in others]
        handles = await client.enqueue_many(payloads, keys=keys)
        parts = zip(others, payloads, keys, handles, strict=True)
        jobs += [_Job([person], payload, key, handle) for person, payload, key, handle in parts]
    return jobs


def _key(content: str) -> str:
    return "import-" + hashlib.sha256(content.encode()).hexdigest()


async def _finish(client: JobClient, jobs: list[_Job], timeout: timedelta) -> Imported:  # noqa: ASYNC109 - passed on
    done = [await _outcome(client, job, timeout) for job in jobs]
    return Imported(
        created=sum(one.created for one in done),
        existing=sum(one.existing for one in done),
        refused=tuple(refused for one in done for refused in one.refused),
    )


async def _outcome(client: JobClient, job: _Job, timeout: timedelta) -> Imported:  # noqa: ASYNC109 - passed on
    handle, tries = job.handle, 1
    while True:
        try:
            result = await handle.result(timeout=timeout)
        except JobFailedError as error:
            if handle.is_new or tries == _TRIES:
                return Imported(refused=tuple(Refused(one.line, str(error), one.values) for one in job.people))
            # The key still holds the failure of an earlier import: try again under a new key.
            handle = await client.enqueue(job.payload, key=f"{job.key}-{tries}")
            tries += 1
        else:
            new = sum(user.is_new for user in result.users) if isinstance(result, StoredUsers) else 1
            created = new if handle.is_new else 0
            return Imported(created=created, existing=len(job.people) - created)
