"""What a contender gets: the servers and the jobs. Loaded in every environment of the benchmark."""

import asyncio
import json
import os
import random
from collections.abc import Coroutine, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

import uvloop

_VARIABLE = "BENCH_TARGET"

KINDS = ("create_user", "find_user", "no_op")
"""The kinds of jobs: insert a user, look one up by id, increment a counter in shared memory."""

USERS = 1000
"""Number of users for look-ups, with the ids from 1."""


@dataclass(frozen=True)
class Target:
    """The servers and settings for a contender's process."""

    database_url: str
    redis_url: str
    counter: str
    """Shared memory file with one counter for each worker process."""

    kind: str = "create_user"
    """The kind of jobs, for contenders that run no-ops differently."""

    process: int = 0
    """Number of this worker process, from 0."""

    max_jobs: int = 0
    """Jobs at once; 0 means the contender's best number."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read the target from the variable that ``environment`` returns."""
        return cls(**json.loads(os.environ[_VARIABLE]))

    def environment(self) -> dict[str, str]:
        """Return the variable for a child process."""
        return {_VARIABLE: json.dumps(asdict(self))}


@dataclass(frozen=True)
class Job:
    """One job."""

    kind: str
    arguments: dict[str, Any]


def jobs(kind: str, first: int, count: int) -> list[Job]:
    """Return jobs of a kind. Names and e-mails of users are unique; look-ups are spread over all users."""
    numbers = range(first, first + count)
    if kind == "create_user":
        return [Job(kind, {"name": f"User {number}", "email": f"user{number}@example.org"}) for number in numbers]
    if kind == "find_user":
        return [Job(kind, {"id": random.randint(1, USERS)}) for _ in numbers]
    return [Job("no_op", {}) for _ in numbers]


class Producer(Protocol):
    """How a contender enqueues."""

    async def fill(self, jobs: list[Job]) -> None:
        """Enqueue many jobs in the library's fastest way."""

    async def enqueue(self, job: Job) -> Any:  # noqa: ANN401 - each library has its own handle
        """Enqueue one job in the library's ordinary way; return the handle for ``result``."""

    async def result(self, handle: Any) -> None:  # noqa: ANN401 - as above
        """Wait for the result in the library's own way.

        Raises:
            NotImplementedError: the library has no results.
        """


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run on uvloop, for all contenders alike."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


async def in_turns(calls: Iterable[Coroutine[Any, Any, Any]], *, at_once: int) -> None:
    """Await all calls, ``at_once`` at a time."""
    waiting = iter(calls)

    async def work() -> None:
        for call in waiting:
            await call

    await asyncio.gather(*(work() for _ in range(at_once)))
