"""Settings of the worker process. Reads the environment only in ``load``."""

import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from arqonce.database.settings import DatabaseSettings
from arqonce.environment import Duration, EnvironmentSettings, PositiveDuration, at_most, require_valid
from arqonce.process.health_file import is_foreign
from arqonce.queues import ServedQueues
from arqonce.settings.operations import OperationsSettings
from arqonce.settings.queue import QueueSettings
from arqonce.wire.keys import QUEUE

__all__ = ["QueueSettings", "Settings", "WorkerSettings"]

_LONGEST_REDELIVERY = timedelta(days=8)
"""A message expires in Redis 7 days after its job is due; one more day for retries in progress."""


SPARE_CONNECTIONS = 3
"""Connections to PostgreSQL that a worker has beside one for each slot: see ``Settings.pool_size``."""

_SHORTEST_LEASE = timedelta(seconds=1)
"""Shortest lease. The event loop that runs the jobs renews it three times per length."""


_SHORTEST_HANG = timedelta(seconds=3)
"""Shortest time after which a silent process is killed: a busy machine may leave a healthy one without CPU so long."""

_REGISTRY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
"""``module:NAME``."""


def _read_queues(value: object) -> object:
    return ServedQueues.parse(value) if isinstance(value, str) else value


class WorkerSettings(EnvironmentSettings):
    """The ``WORKER_*`` variables."""

    model_config = SettingsConfigDict(env_prefix="WORKER_")
    other_names = {"concurrency": "max_jobs", "queue_name": "queue", "grace": "shutdown_grace"}  # noqa: RUF012 - a ClassVar of the base

    queue: Annotated[ServedQueues, NoDecode, BeforeValidator(_read_queues)] = Field(
        default=ServedQueues((QUEUE,)),
        description="key of the queue, as in arq's queue_name; or several, in order or with weights",
        examples=[QUEUE, "high,arq:queue,low", "high=5,arq:queue=3,low=1"],
    )
    registry: str | None = Field(
        default=None,
        description="more jobs to run than those of the application: module:NAME of each registry, separated by commas",
        examples=["shop.jobs:REGISTRY"],
    )
    max_jobs: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=10,
        description="most jobs that run at once, a batch counts as one; the pool has three connections more",
        examples=["10"],
    )
    max_working: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=100,
        description="most jobs that do the slow work of their phases at once, beside those; they hold no connection",
        examples=["100"],
    )
    lease: Annotated[PositiveDuration, at_most(timedelta(days=1))] = Field(
        default=timedelta(seconds=14),
        description="how long a claim holds without renewal: a killed worker's jobs start again after it",
        examples=["14s"],
    )
    shutdown_grace: Duration = Field(
        default=timedelta(seconds=20),
        description="how long running jobs may continue after SIGTERM; the supervisor's own limit must be longer",
        examples=["20s"],
    )
    keep_result: Duration = Field(
        default=timedelta(hours=1),
        description="how long a result can be read, and a repeated key is a duplicate",
        examples=["1h"],
    )
    keep_receipts: Duration = Field(
        default=timedelta(days=30),
        description="how long the receipt of a job is kept; longer than any redelivery, so at least 8d",
        examples=["30d"],
    )
    keep_dead: Duration = Field(
        default=timedelta(days=90), description="how long a dead letter is kept", examples=["90d"]
    )
    keep_attempts: Duration = Field(
        default=timedelta(days=7),
        description="how long it is on record that an attempt has failed, for job show",
        examples=["7d"],
    )
    keep_audit: Duration = Field(
        default=timedelta(days=400),
        description="how long an operator's act is on record; the command migrate removes older ones, workers may not",
        examples=["400d"],
    )
    poll_interval: Annotated[PositiveDuration, at_most(timedelta(minutes=1))] = Field(
        default=timedelta(milliseconds=50),
        description="interval of checks for aborts while jobs run, and for jobs where Redis does not notify the worker",
        examples=["50ms"],
    )
    hang_limit: Duration | None = Field(
        default=None,
        description="how long the event loop of one of several processes (run --processes) may stand still before "
        "it is killed and started again; by default the longest deadline of all jobs and 30s",
        examples=["90s"],
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="console for people, json for machines; auto: console on a terminal",
        examples=["auto", "console", "json"],
    )  # fmt: skip
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="lowest level to log", examples=["debug", "info", "warning", "error"]
    )
    health_file: Path | None = Field(
        default=None,
        description="file into which the worker writes its health, for the command health; none by default",
        examples=["/tmp/worker-health"],  # noqa: S108 - an example for a container, whose /tmp is its own
    )

    @property
    def default_queue(self) -> str:
        """Where commands and functions enqueue if nobody says where: arq's queue if it is served, else the first."""
        return self.queue.default(QUEUE)

    @field_validator("health_file")
    @classmethod
    def _require_ordinary_file(cls, value: Path | None) -> Path | None:
        """Refuse what the worker would replace and at its end remove: as root, /dev/null of the whole machine."""
        try:
            is_folder = value is not None and value.is_dir()
            is_special = value is not None and value.exists() and not value.is_file()
            holds_other = value is not None and value.is_file() and is_foreign(value)
        except OSError as error:
            message = f"cannot be the name of a file: {error.strerror}"
            raise ValueError(message) from None
        if is_folder:
            message = "is a folder: name a file in it"
            raise ValueError(message)
        if holds_other:
            message = "holds something else, which the worker would replace: name a file of its own"
            raise ValueError(message)
        if is_special:
            message = "is a device, a pipe or a socket, which the worker would replace: name a file of its own, or none"
            raise ValueError(message)
        return value

    @field_validator("registry")
    @classmethod
    def _require_names(cls, value: str | None) -> str | None:
        for name in re.split(r"[\s,]+", value or ""):
            if name and not _REGISTRY.fullmatch(name):
                message = f"{name[:100]!r} is not of the form module:NAME"
                raise ValueError(message)
        return value

    @field_validator("lease")
    @classmethod
    def _outlast_a_hiccup(cls, value: timedelta) -> timedelta:
        if value < _SHORTEST_LEASE:
            message = "must be at least 1s: a worker that is merely busy would lose its jobs to another"
            raise ValueError(message)
        return value

    @field_validator("hang_limit")
    @classmethod
    def _outlast_a_pause(cls, value: timedelta | None) -> timedelta | None:
        if value is not None and value < _SHORTEST_HANG:
            message = f"must be at least {_SHORTEST_HANG.seconds}s: a process that is merely busy would be killed"
            raise ValueError(message)
        return value

    @field_validator("keep_receipts")
    @classmethod
    def _outlast_redelivery(cls, value: timedelta) -> timedelta:
        if value < _LONGEST_REDELIVERY:
            message = "must be at least 8d: a job that is delivered again later would take effect twice"
            raise ValueError(message)
        return value


@dataclass(frozen=True)
class Settings:
    """All settings of a worker process."""

    database: DatabaseSettings
    queue: QueueSettings
    worker: WorkerSettings
    operations: OperationsSettings | None = None
    """``None``: no port of operations."""

    @property
    def pool_size(self) -> int:
        """Connections to PostgreSQL that a worker needs: one for each job, and three more.

        One for the health probe and housekeeping, so that a busy worker does not look unhealthy; one for the relay's
        queries; one that the relay's listener holds.
        """
        return self.worker.max_jobs + SPARE_CONNECTIONS

    @classmethod
    def load(cls, name: str = "arqonce") -> Self:
        """Read the environment and the secret files. ``name`` is the application's name in ``pg_stat_activity``.

        Raises:
            SettingsError: lists every missing or invalid setting, one per line, with its cure.
        """
        require_valid(DatabaseSettings, QueueSettings, WorkerSettings, OperationsSettings)
        return cls(cls.load_database(name), QueueSettings.load(), WorkerSettings.load(), OperationsSettings.load())

    @staticmethod
    def load_database(name: str) -> DatabaseSettings:
        """Read the settings DATABASE_*; ``name`` is as above.

        Raises:
            SettingsError: one of them is missing or invalid.
        """
        database = DatabaseSettings.load()
        if "application_name" not in database.model_fields_set:
            database = database.model_copy(update={"application_name": name})
        return database
