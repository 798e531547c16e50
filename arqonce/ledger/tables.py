"""The ledger's tables and constraints: jobs that are promised, have ended or are dead. Knows no queue."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Index,
    Integer,
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
    type_annotation_map: ClassVar = {str: Text, int: BigInteger, datetime: DateTime(timezone=True)}


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
    __table_args__ = (Index(None, "died_at"),)

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
