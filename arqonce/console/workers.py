"""Live workers as pages show them. What a worker has said in Redis is taken only as far as it can be read."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from arqonce.connection.presence import LiveWorker
from arqonce.control.workers import Doing

_SILENT = timedelta(seconds=45)
"""A worker says what it does every 5 s; an idle one every 30 s."""

_Time = Annotated[float, Field(ge=0, le=4e9)]
"""In seconds since 1970."""

_Count = Annotated[int, Field(ge=0, le=10**15)]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class RunningJob(_Said):
    """A job that a worker runs."""

    id: str
    job_name: str
    since: _Time


class Said(_Said):
    """What a worker has said that it does."""

    state: str = ""
    version: str | None = None
    kinds: Sequence[str] = ()
    slots: _Count | None = None
    running: _Count | None = None
    jobs: Sequence[RunningJob] = ()
    """Those that run for the longest time, at most 20."""

    rss: _Count | None = None
    """Memory in bytes."""

    started: _Time | None = None
    seen: float | None = None
    """How many seconds ago it said so; ``None`` if it has said nothing."""


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A live worker."""

    live: LiveWorker
    said: Said

    @classmethod
    def read(cls, worker: LiveWorker, doing: Doing | None) -> "Worker":
        """Return the worker; what it has said counts as nothing if it is not of the form that workers write."""
        try:
            return cls(live=worker, said=Said.model_validate(doing or {}))
        except ValidationError:
            return cls(live=worker, said=Said())

    @property
    def where(self) -> str:
        """Its host and process."""
        return f"{self.live.host}:{self.live.pid}"

    @property
    def is_silent(self) -> bool:
        """Whether it has said nothing for long."""
        return self.said.seen is None or self.said.seen > _SILENT.total_seconds()

    @property
    def is_drained(self) -> bool:
        """Whether it takes no jobs."""
        return self.said.state == "drained"

    @property
    def state(self) -> tuple[str, str]:
        """The kind of its state, and the word for it."""
        if self.is_silent:
            return "bad", "Silent"
        return ("off", "Drained") if self.is_drained else ("good", "Works")
