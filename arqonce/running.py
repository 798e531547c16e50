"""The job that runs in this task, as whoever promises jobs in its transaction sees it. Knows no table and no driver."""

import hashlib
import re
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

_LONGEST_ROOT = 170
"""Most characters of the first job's id in the ids of its follow-ups."""

_DERIVED = re.compile(r"~[0-9a-f]{20}$")
"""How a derived id ends."""


class ReadOnlyJobError(TypeError):
    """The handler of a job declared ``reads_only`` has written. A bug, so it is not retried."""


def follow_up_id(parent: str, name: str, number: int) -> str:
    """Return the id of a job's follow-up of this kind, the ``number``-th from 1, unless its promise names a key."""
    digest = hashlib.sha256(f"{parent}\0{name}\0{number}".encode()).hexdigest()[:20]
    return f"{root_of(parent)}~{digest}"


def root_of(job_id: str) -> str:
    """Return the id of the first job of the chain, or the part of it with which those of its follow-ups begin."""
    return _DERIVED.sub("", job_id)[:_LONGEST_ROOT]


class RunningJob:
    """The job, or the batch of jobs, whose handler runs with ``session``. A context manager around the handler's call.

    Only promises in the job's own transaction are its follow-ups: by its session, or by a connection of that.
    """

    __slots__ = ("_counts", "_session", "_token", "job_id", "ledger", "name", "queue", "reads_only")

    def __init__(  # noqa: PLR0913 - what a promise takes over
        self,
        session: Any,  # noqa: ANN401 - SQLAlchemy's AsyncSession
        *,
        name: str,
        job_id: str | None,
        queue: str,
        ledger: str,
        reads_only: bool,
    ) -> None:
        """Describe the job; a batch has no ``job_id``. ``queue`` is where it was claimed, ``ledger`` the schema."""
        self.name = name
        self.queue = queue
        self.ledger = ledger
        self.job_id = job_id
        self.reads_only = reads_only
        self._session = session
        self._counts: dict[str, int] = {}
        self._token: Token[RunningJob | None] | None = None

    def __enter__(self) -> Self:
        """Be the job that this task, and the tasks that it starts, run."""
        self._token = _running.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it, also for tasks that outlive it, whose contexts would keep the session alive."""
        if self._token is not None:
            _running.reset(self._token)
        self._token = self._session = None

    def next_id(self, name: str) -> str | None:
        """Return the id of the next follow-up of this kind: the same in each attempt. ``None`` for a batch.

        It begins with the id of the first job of the chain, so that all its follow-ups are found by that.
        """
        if self.job_id is None:
            return None
        number = self._counts[name] = self._counts.get(name, 0) + 1
        return follow_up_id(self.job_id, name, number)

    def owns(self, connection: Any) -> bool:  # noqa: ANN401 - of any library
        """Return whether the connection is in the job's transaction. No round trip."""
        if self._session is None:
            return False
        own = self._session.sync_session
        if connection is self._session or connection is own:
            return True
        engine = getattr(getattr(connection, "sync_connection", connection), "engine", None)
        if engine is not None:  # a second connection of this engine cannot write
            return engine is own.get_bind().engine
        return getattr(connection, "loan", None) is not None  # the driver's, lent to this job


_running: ContextVar[RunningJob | None] = ContextVar("running", default=None)


def running_job(connection: Any) -> RunningJob | None:  # noqa: ANN401 - of any library
    """Return the job in whose transaction the connection is; ``None`` outside of a handler.

    Raises:
        ReadOnlyJobError: the job is declared ``reads_only``, so that it cannot promise any.
    """
    job = _running.get()
    if job is None or not job.owns(connection):
        return None
    if job.reads_only:
        raise ReadOnlyJobError(
            f"the handler of {job.name} promises a job, and its JobSpec says reads_only=True: remove one of the two"
        )
    return job
