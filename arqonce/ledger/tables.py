"""The ledger's tables and constraints: promised, ended and dead jobs; schedules; pauses; acts. Knows no queue."""

from datetime import datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Sequence,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from arqonce.namespace import LEDGER
from arqonce.wire.bounds import MAX_BYTES


class Base(DeclarativeBase):
    """What all tables share: the schema, and constraint names, on which migrations and error handling rely."""

    metadata = MetaData(
        schema=LEDGER,
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "uq": "%(table_name)s_%(column_0_name)s_key",
            "ix": "%(table_name)s_%(column_0_name)s_idx",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
        },
    )
    type_annotation_map: ClassVar = {
        str: Text,
        int: BigInteger,
        datetime: DateTime(timezone=True),
        timedelta: Interval,
    }


class JobReceipt(Base):
    """A job that has ended with a result, committed in the transaction of its effect, or with a refusal.

    The primary key is the fence: if two workers run the same job, only one can commit.
    """

    __tablename__ = "receipts"
    __table_args__ = (
        CheckConstraint("num_nonnulls(result, failure) = 1", name="one_answer"),
        Index(None, "finished_at"),  # for the retention, which removes the oldest
    )

    job_id: Mapped[str] = mapped_column(primary_key=True)
    job_name: Mapped[str]
    request_hash: Mapped[bytes] = mapped_column(LargeBinary)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    failure: Mapped[dict[str, str] | None] = mapped_column(JSONB(none_as_null=True))
    attempt: Mapped[int] = mapped_column(Integer)
    finished_at: Mapped[datetime] = mapped_column(server_default=func.now())


DISPATCH_EPOCH = Sequence("dispatch_epoch", metadata=Base.metadata)
"""The number of the current epoch. A new one begins whenever Redis may have lost dispatched jobs."""


class PromisedJob(Base):
    """A job that a service has promised in its own transaction and that has not ended yet.

    ``give_at`` is when a relay dispatches it to Redis next: shortly before it is due, and again later until it ends.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        CheckConstraint(f"octet_length(message) <= {MAX_BYTES}", name="message_size"),
        Index(None, "queue", "give_at"),
        # Redis can lose only dispatched jobs. The index finds those of earlier epochs; usually there are none.
        Index("outbox_epoch_idx", "queue", "epoch", postgresql_where=text("dispatched_at IS NOT NULL")),
    )

    job_id: Mapped[str] = mapped_column(primary_key=True)
    job_name: Mapped[str]
    queue: Mapped[str]
    message: Mapped[bytes] = mapped_column(LargeBinary)
    request_hash: Mapped[bytes] = mapped_column(LargeBinary)
    due_at: Mapped[datetime]
    give_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    epoch: Mapped[int] = mapped_column(server_default=text("0"))
    dispatched_at: Mapped[datetime | None]
    dispatches: Mapped[int] = mapped_column(Integer, server_default=text("0"))


class UniqueRequest(Base):
    """A request that was promised with ``unique_for``: until then an equal one is the same job."""

    __tablename__ = "unique_requests"
    __table_args__ = (Index(None, "until"),)  # for the retention

    name: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    job_id: Mapped[str]
    until: Mapped[datetime]


class DeadJob(Base):
    """A job that failed for good, with its message and the reason. Kept until it is retried or discarded."""

    __tablename__ = "dead_jobs"
    __table_args__ = (
        Index(None, "died_at"),
        Index(None, "job_name", "reason", "died_at"),  # for operators, who look at groups of them
        Index(None, "queue"),  # for metrics, which count those of a queue
    )

    job_id: Mapped[str] = mapped_column(primary_key=True)
    job_name: Mapped[str | None]
    message: Mapped[bytes] = mapped_column(LargeBinary)
    request_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    reason: Mapped[str]
    explanation: Mapped[str]
    error: Mapped[str]
    sqlstate: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(Integer)
    queue: Mapped[str | None]
    died_at: Mapped[datetime] = mapped_column(server_default=func.now())


class AttemptRecord(Base):
    """An attempt that failed. Those that succeed are known by the job's receipt alone."""

    __tablename__ = "attempts"
    __table_args__ = (Index(None, "job_id", "failed_at"), Index(None, "failed_at"))

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    job_id: Mapped[str]
    attempt: Mapped[int] = mapped_column(Integer)
    job_name: Mapped[str]
    queue: Mapped[str]
    code: Mapped[str]
    """The code of the failure, or the name of the exception's class."""
    sqlstate: Mapped[str | None]
    error: Mapped[str]
    """The error and its causes by type and place in the code, without texts of exceptions that are not ours."""
    worker: Mapped[str]
    """Host and process: ``host:pid``."""
    started_at: Mapped[datetime]
    failed_at: Mapped[datetime]
    retry_at: Mapped[datetime | None]
    """When the job was to run again; ``None`` if this was its last attempt."""
    counted: Mapped[bool]
    """Whether it was a step towards the job's ``max_attempts``: one that an outage broke off is none."""


class RedisLoss(Base):
    """An epoch that a relay has begun because Redis had been emptied, restarted or replaced."""

    __tablename__ = "redis_losses"

    epoch: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    noticed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    given_again: Mapped[int] = mapped_column(server_default=text("0"))
    """How many promised jobs were written into Redis once more."""


class ScheduleState(Base):
    """A schedule, as the latest release of the workers' code defines it, and how far it has come."""

    __tablename__ = "schedules"
    __table_args__ = (Index(None, "fleet", "release"), Index("schedules_fleet_slot_idx", "fleet", "next_slot"))

    name: Mapped[str] = mapped_column(primary_key=True)
    definition: Mapped[int]
    """Hash of the definition. Only workers that have the same one may decide on slots."""
    fleet: Mapped[str]
    release: Mapped[str]
    """With ``fleet`` the release that owns the row. The row is removed when no worker has that release any more."""
    job_name: Mapped[str | None]
    """``None`` if a function of the slot makes the payload."""
    cron: Mapped[str | None]
    every: Mapped[timedelta | None]
    zone: Mapped[str]
    starts: Mapped[datetime | None]
    ends: Mapped[datetime | None]
    queue: Mapped[str | None]
    overlap: Mapped[str]
    catch_up: Mapped[timedelta]
    next_slot: Mapped[datetime | None]
    """The first slot that is not decided yet; ``None`` if there are no more."""
    last_slot: Mapped[datetime | None]
    """The last slot whose job was promised."""
    last_job_id: Mapped[str | None]
    skipped: Mapped[int] = mapped_column(server_default=text("0"))
    last_skipped: Mapped[datetime | None]
    skip_reason: Mapped[str | None]
    paused_until: Mapped[datetime | None]
    """Earlier slots are skipped. The year 9999 if somebody must resume it; the time of the resumption, if resumed."""
    paused_at: Mapped[datetime | None]
    paused_by: Mapped[str | None]
    paused_why: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ScheduleRelease(Base):
    """A set of schedule definitions that workers of one queue, a fleet, have or had a moment ago."""

    __tablename__ = "schedule_releases"

    fleet: Mapped[str] = mapped_column(primary_key=True)
    """The queue of its workers; of several their default one."""
    release: Mapped[str] = mapped_column(primary_key=True)
    """Hash of the definitions."""
    first_seen: Mapped[datetime] = mapped_column(server_default=func.now())
    """When the first worker with it started. Of two definitions of one schedule that of the later release holds."""
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Pause(Base):
    """Workers start no job of a queue, or none of one kind in it, until the row is deleted or its time is over."""

    __tablename__ = "pauses"

    queue: Mapped[str] = mapped_column(primary_key=True)
    job_name: Mapped[str] = mapped_column(primary_key=True, server_default=text("''"))
    """Empty: the whole queue."""
    reason: Mapped[str]
    paused_by: Mapped[str]
    paused_at: Mapped[datetime] = mapped_column(server_default=func.now())
    until: Mapped[datetime | None]
    """``None``: until somebody resumes it."""


class AuditRecord(Base):
    """One act of an operator. Rows are only added."""

    __tablename__ = "audit"
    __table_args__ = (
        Index(None, "at"),
        Index(None, "who", "id"),  # for whoever looks at one person's acts, the last one first
    )

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    who: Mapped[str]
    act: Mapped[str]
    target: Mapped[str]
    number: Mapped[int]
    """How many jobs, schedules and so on it concerned."""
    why: Mapped[str | None]
