"""What a contender is told: where the servers are and what a job is. Loaded in every environment of the bench."""

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
"""What the jobs do: insert a user, look one up by id, count up a number in shared memory."""

USERS = 1000
"""Users that look-ups look for, with the ids 1 to so many."""


@dataclass(frozen=True)
class Target:
    """Where to work and how."""

    database_url: str
    redis_url: str
    counter: str
    """File of shared memory with one number for each worker process."""

    kind: str = "create_user"
    """What the jobs will be, for contenders that run no-ops in another way."""

    process: int = 0
    """Which worker process this is."""

    max_jobs: int = 0
    """Jobs at once, 0 for the contender's own best."""

    @classmethod
    def from_environment(cls) -> Self:
        """Read what the bench has put there."""
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
    """Return jobs of a kind. No two users share a name or an e-mail; look-ups are spread over all users."""
    numbers = range(first, first + count)
    if kind == "create_user":
        return [Job(kind, {"name": f"User {number}", "email": f"user{number}@example.org"}) for number in numbers]
    if kind == "find_user":
        return [Job(kind, {"id": random.randint(1, USERS)}) for _ in numbers]
    return [Job("no_op", {}) for _ in numbers]


class Producer(Protocol):
    """How a contender enqueues."""

    async def fill(self, jobs: list[Job]) -> None:
        """Enqueue many, the quickest way that the library has."""

    async def enqueue(self, job: Job) -> Any:  # noqa: ANN401 - each library has its own handle
        """Enqueue one, the library's ordinary way; return what ``result`` takes."""

    async def result(self, handle: Any) -> None:  # noqa: ANN401 - as above
        """Wait for the result, the library's own way.

        Raises:
            NotImplementedError: it has none.
        """


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run on the fastest event loop, the same for all."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


async def in_turns(calls: Iterable[Coroutine[Any, Any, Any]], *, at_once: int) -> None:
    """Await all, so many at once."""
    waiting = iter(calls)

    async def work() -> None:
        for call in waiting:
            await call

    await asyncio.gather(*(work() for _ in range(at_once)))
