"""Records dead letters of jobs that die at about the same time together. Decides nothing.

A fault in a handler kills jobs by hundreds, and each letter by itself is ten round trips: several times the work of a
job. So a letter that comes while others are written waits for the next turn, as transactions do in a group commit of a
database.
"""

import asyncio
from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.execution.dead_letters import WRITE_LIMIT, bury, bury_together
from arqonce.ledger.attempts import FailedAttempt
from arqonce.ledger.dead_jobs import STEP, STEP_BYTES, DeadLetter
from arqonce.portion import Portion


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
        self._portion = Portion(WRITE_LIMIT, most=STEP_BYTES)
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

    async def bury_together(self, letters: Sequence[DeadLetter], *, have_run: bool = False) -> set[str]:
        """Record the first of them, as ``dead_letters.bury_together`` does: as many as there is time for.

        Return the ids of those that were recorded; the others need ``bury`` each. Raises its errors.
        """
        with self._portion.measured() as most:
            return await bury_together(self._sessions, letters[: _fitting(letters, most)], have_run=have_run)

    async def _write_all(self) -> None:
        try:
            while waiting := self._still_waiting():
                await self._write(waiting[: _fitting([one.letter for one in waiting], self._portion.bytes)])
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
            with self._portion.measured():
                written = await bury_together(
                    self._sessions, list(letters.values()), have_run=have_run, attempts=attempts
                )
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


def _fitting(letters: Sequence[DeadLetter], most: int) -> int:
    """Return how many of them one transaction takes: at most so many bytes of messages, but one letter at least."""
    size = 0
    for number, letter in enumerate(letters[:STEP]):
        size += len(letter.message)
        if number and size > most:
            return number
    return min(len(letters), STEP)
