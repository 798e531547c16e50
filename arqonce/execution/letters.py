"""Records dead letters of jobs that die at about the same time together. Decides nothing.

A fault in a handler kills jobs by hundreds, and each letter by itself is ten round trips: several times the work of a
job. So a letter that comes while others are written waits for the next turn, as transactions do in a group commit of a
database.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from itertools import islice

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.execution.dead_letters import bury, bury_together
from arqonce.ledger.attempts import FailedAttempt
from arqonce.ledger.dead_jobs import STEP, STEP_BYTES, DeadLetter


@dataclass(eq=False)
class _Waiting:
    """A letter that is to be written, and the answer to whoever waits for it."""

    letter: DeadLetter
    has_run: bool
    attempt: FailedAttempt | None
    is_written: "asyncio.Future[bool | None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    """False: not with others. ``None``: the database did not answer."""


class Letters:
    """Writes dead letters, in one turn after the other."""

    def __init__(self, sessions: async_sessionmaker[AsyncSession]) -> None:
        """Write nothing yet."""
        self._sessions = sessions
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def bury(self, letter: DeadLetter, *, has_run: bool = False, attempt: FailedAttempt | None = None) -> bool:
        """Record the letter as ``dead_letters.bury`` does: together with others if that can be done, else by itself.

        Raises:
            TimeoutError: the database did not answer.
            SQLAlchemyError: the letter could not be written; the job must be delivered again.
        """
        waiting = _Waiting(letter, has_run, attempt)
        self._waiting.append(waiting)
        if self._writing is None or self._writing.done():
            # In a context of no job, since it works for all of them.
            self._writing = asyncio.create_task(self._write_all(), name="dead letters", context=Context())
        is_written = await waiting.is_written
        if is_written is None:
            raise TimeoutError
        return is_written or await bury(self._sessions, letter, has_run=has_run, attempt=attempt)

    async def _write_all(self) -> None:
        try:
            while self._still_waiting():
                await self._write(list(_first_of(self._waiting)))
        finally:  # all have their answers, unless this task was cancelled
            for one in self._waiting:
                one.is_written.cancel()

    def _still_waiting(self) -> Sequence[_Waiting]:
        """Return those who wait; whoever was cancelled does not, and his job is delivered again."""
        self._waiting = [one for one in self._waiting if not one.is_written.done()]
        return self._waiting

    async def _write(self, together: Sequence[_Waiting]) -> None:
        letters = {one.letter.job_id: one.letter for one in together}
        attempts = [one.attempt for one in together if one.attempt is not None]
        have_run = any(one.has_run for one in together)
        try:
            written = await bury_together(self._sessions, list(letters.values()), have_run=have_run, attempts=attempts)
        except TimeoutError:
            for one in self._still_waiting():
                one.is_written.set_result(None)
            return
        except Exception:  # noqa: BLE001 - of whatever one of them causes, it is told by itself
            written = set()
        for one in together:
            if not one.is_written.done():
                is_first = letters[one.letter.job_id] is one.letter
                one.is_written.set_result(is_first and one.letter.job_id in written)


def _first_of(waiting: Sequence[_Waiting]) -> Iterator[_Waiting]:
    """Return those whose turn it is: so many as one statement takes, and a bounded number of bytes."""
    size = 0
    for one in islice(waiting, STEP):
        size += len(one.letter.message)
        if size > STEP_BYTES and size > len(one.letter.message):
            return
        yield one
