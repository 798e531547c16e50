"""The jobs of all contenders but ours, which executes the same statements with its own handlers and engine."""

import asyncio
import mmap
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from sqlalchemy import Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from arqonce.database.settings import DatabaseSettings
from bench.target import Target
from db.tables import User

Sessions = async_sessionmaker[AsyncSession]

INSERT = "INSERT INTO users (name, email) VALUES ($1, $2)"
"""One user, for asyncpg."""

INSERT_SET = "INSERT INTO users (name, email) SELECT * FROM unnest($1::text[], $2::text[])"
"""A set of users, for asyncpg."""

_INSERT_SET = text("INSERT INTO users (name, email) SELECT * FROM unnest(:names, :emails)").bindparams(
    bindparam("names", type_=ARRAY(Text)), bindparam("emails", type_=ARRAY(Text))
)

_SETS_AT_ONCE = 2
"""Sets in flight: while the database executes one set, the next one is gathered and may be sent."""


class Bodies:
    """The jobs' bodies."""

    def __init__(self, sessions: Sessions, counter: "Counter") -> None:
        self.sessions = sessions
        self._counter = counter

    async def create_user(self, name: str, email: str) -> int:
        """Open a session, insert a user, commit; return the id."""
        async with self.sessions.begin() as session:
            user = User(name=name, email=email)
            session.add(user)
            await session.flush()
            return user.id

    async def find_user(self, user_id: int) -> str | None:
        """Look a user up by id; return the name."""
        async with self.sessions() as session:
            user = await session.get(User, user_id)
        self._counter.add()
        return user.name if user else None

    def no_op(self) -> None:
        """Only count the job."""
        self._counter.add()


def build_tasks(bodies: Bodies | None) -> "tuple[Callable[..., Coroutine[Any, Any, Any]], ...]":
    """Return the jobs as functions, for libraries that need them in producers, too. A producer has no ``bodies``."""

    async def create_user(name: str, email: str) -> int:
        return await _of(bodies).create_user(name, email)

    async def find_user(id: int) -> str | None:  # noqa: A002 - as our own job calls it
        return await _of(bodies).find_user(id)

    async def no_op() -> None:
        _of(bodies).no_op()

    return create_user, find_user, no_op


def _of(bodies: Bodies | None) -> Bodies:
    if bodies is None:
        raise RuntimeError("a producer runs no tasks")
    return bodies


@asynccontextmanager
async def open_bodies(target: Target, *, pool_size: int) -> AsyncIterator[Bodies]:
    """Yield the jobs' bodies over a plain engine with a pool of ``pool_size`` connections."""
    url = DatabaseSettings(url=SecretStr(target.database_url)).sqlalchemy_url
    engine = create_async_engine(url, pool_size=pool_size, max_overflow=0, pool_use_lifo=True)
    yield Bodies(async_sessionmaker(engine, expire_on_commit=False), Counter(Path(target.counter), target.process))
    await engine.dispose()


class UserSets:
    """A set-based body written by hand: concurrent calls become one statement in one transaction."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._waiting: list[tuple[str, str, asyncio.Future[None]]] = []
        self._in_flight: set[asyncio.Task[None]] = set()

    async def create_user(self, name: str, email: str) -> None:
        """Insert a user together with other waiting ones; return after the commit."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((name, email, done))
        if len(self._in_flight) < _SETS_AT_ONCE:
            self._start()
        await done

    def _start(self) -> None:
        task = asyncio.create_task(self._insert())
        self._in_flight.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._in_flight.discard(task)
        if self._waiting:
            self._start()

    async def _insert(self) -> None:
        await asyncio.sleep(0)  # let the other jobs claimed with this one add their users
        rows, self._waiting = self._waiting, []
        if not rows:
            return
        names, emails, waiting = zip(*rows, strict=True)
        try:
            async with self._sessions.begin() as session:
                connection = await session.connection()
                await connection.execute(_INSERT_SET, {"names": list(names), "emails": list(emails)})
        except Exception as error:  # noqa: BLE001 - each job of the set fails with it
            for done in waiting:
                done.set_exception(error)
        else:
            for done in waiting:
                done.set_result(None)


_NUMBER = 8
"""Size of a counter in bytes."""


class Counter:
    """This process's counter in shared memory, which the benchmark reads; counting costs almost nothing."""

    def __init__(self, path: Path, process: int) -> None:
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
        self._process = process

    def add(self) -> None:
        """Add one."""
        self._numbers[self._process] += 1


class Counters:
    """All processes' counters, for the benchmark to read."""

    def __init__(self, path: Path, processes: int) -> None:
        path.write_bytes(bytes(_NUMBER * processes))
        with path.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")

    def each(self) -> list[int]:
        """Return the count of each process."""
        return list(self._numbers)

    def total(self) -> int:
        """Return the sum of all counts."""
        return sum(self._numbers)
