"""Background jobs that take effect exactly once: arq on the wire, results in PostgreSQL.

The names that producers and jobs import. Each is loaded at its first use: a producer loads no SQLAlchemy, no driver and
no arq; a command that only reads a file loads nothing at all.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arqonce.application import Application as Application
    from arqonce.arq.worker import Worker as Worker
    from arqonce.client.answers import JobInfo as JobInfo
    from arqonce.client.client import JobClient as JobClient
    from arqonce.client.client import JobHandle as JobHandle
    from arqonce.client.requests import Promised as Promised
    from arqonce.client.sync_client import SyncJobClient as SyncJobClient
    from arqonce.client.sync_client import SyncJobHandle as SyncJobHandle
    from arqonce.commands.listed import Command as Command
    from arqonce.database.driver import fetch_by_driver as fetch_by_driver
    from arqonce.database.engine import build_engine as build_engine
    from arqonce.database.engine import open_database as open_database
    from arqonce.database.schema import Schema as Schema
    from arqonce.database.settings import DatabaseSettings as DatabaseSettings
    from arqonce.environment import SettingsError as SettingsError
    from arqonce.failures import AttemptsExhaustedError as AttemptsExhaustedError
    from arqonce.failures import ConflictError as ConflictError
    from arqonce.failures import ConstraintViolatedError as ConstraintViolatedError
    from arqonce.failures import DatabaseFailedError as DatabaseFailedError
    from arqonce.failures import DeadlineExceededError as DeadlineExceededError
    from arqonce.failures import EnqueueError as EnqueueError
    from arqonce.failures import InvalidMessageError as InvalidMessageError
    from arqonce.failures import InvalidPayloadError as InvalidPayloadError
    from arqonce.failures import InvalidResultError as InvalidResultError
    from arqonce.failures import JobAbortedError as JobAbortedError
    from arqonce.failures import JobError as JobError
    from arqonce.failures import JobExpiredError as JobExpiredError
    from arqonce.failures import JobFailedError as JobFailedError
    from arqonce.failures import KeyConflictError as KeyConflictError
    from arqonce.failures import MalformedMessageError as MalformedMessageError
    from arqonce.failures import MessageMissingError as MessageMissingError
    from arqonce.failures import MessageTooLargeError as MessageTooLargeError
    from arqonce.failures import PromiseExpiredError as PromiseExpiredError
    from arqonce.failures import QueueUnavailableError as QueueUnavailableError
    from arqonce.failures import RequestConflictError as RequestConflictError
    from arqonce.failures import ResultMissingError as ResultMissingError
    from arqonce.failures import UnknownJobError as UnknownJobError
    from arqonce.job import JobContext as JobContext
    from arqonce.job import RetryAfter as RetryAfter
    from arqonce.ledger.where import JobTrace as JobTrace
    from arqonce.ledger.where import trace_by_job_id as trace_by_job_id
    from arqonce.limits import Limit as Limit
    from arqonce.outbox import enqueue_in as enqueue_in
    from arqonce.outbox import enqueue_in_sync as enqueue_in_sync
    from arqonce.outbox import enqueue_many_in as enqueue_many_in
    from arqonce.outbox import enqueue_many_in_sync as enqueue_many_in_sync
    from arqonce.outbox import status_in as status_in
    from arqonce.outbox import status_in_sync as status_in_sync
    from arqonce.payloads import AnyPayload as AnyPayload
    from arqonce.payloads import Payload as Payload
    from arqonce.payloads import Result as Result
    from arqonce.phases import Phases as Phases
    from arqonce.process.exit_codes import ExitCode as ExitCode
    from arqonce.process.plain import build_worker_settings as build_worker_settings
    from arqonce.resources import Resource as Resource
    from arqonce.schedules.schedule import Schedule as Schedule
    from arqonce.settings.queue import QueueSettings as QueueSettings
    from arqonce.settings.worker import Settings as Settings
    from arqonce.settings.worker import WorkerSettings as WorkerSettings
    from arqonce.spec import JobSpec as JobSpec
    from arqonce.spec import Refusal as Refusal
    from arqonce.spec import Registry as Registry
    from arqonce.tracing import incoming_trace as incoming_trace
    from arqonce.usage import UsageError as UsageError
    from arqonce.wire.codec import decode as decode
    from arqonce.wire.codec import encode as encode
    from arqonce.wire.status import JobStatus as JobStatus

_HOMES = {
    "arqonce.application": ("Application",),
    "arqonce.arq.worker": ("Worker",),
    "arqonce.client.answers": ("JobInfo",),
    "arqonce.client.client": ("JobClient", "JobHandle"),
    "arqonce.client.requests": ("Promised",),
    "arqonce.client.sync_client": ("SyncJobClient", "SyncJobHandle"),
    "arqonce.commands.listed": ("Command",),
    "arqonce.database.driver": ("fetch_by_driver",),
    "arqonce.database.engine": ("build_engine", "open_database"),
    "arqonce.database.schema": ("Schema",),
    "arqonce.database.settings": ("DatabaseSettings",),
    "arqonce.failures": (
        "AttemptsExhaustedError",
        "ConflictError",
        "ConstraintViolatedError",
        "DatabaseFailedError",
        "DeadlineExceededError",
        "EnqueueError",
        "InvalidMessageError",
        "InvalidPayloadError",
        "InvalidResultError",
        "JobAbortedError",
        "JobError",
        "JobExpiredError",
        "JobFailedError",
        "KeyConflictError",
        "MalformedMessageError",
        "MessageMissingError",
        "MessageTooLargeError",
        "PromiseExpiredError",
        "QueueUnavailableError",
        "RequestConflictError",
        "ResultMissingError",
        "UnknownJobError",
    ),
    "arqonce.job": ("JobContext", "RetryAfter"),
    "arqonce.ledger.where": ("JobTrace", "trace_by_job_id"),
    "arqonce.limits": ("Limit",),
    "arqonce.outbox": (
        "enqueue_in",
        "enqueue_in_sync",
        "enqueue_many_in",
        "enqueue_many_in_sync",
        "status_in",
        "status_in_sync",
    ),
    "arqonce.payloads": ("AnyPayload", "Payload", "Result"),
    "arqonce.phases": ("Phases",),
    "arqonce.process.exit_codes": ("ExitCode",),
    "arqonce.process.plain": ("build_worker_settings",),
    "arqonce.usage": ("UsageError",),
    "arqonce.environment": ("SettingsError",),
    "arqonce.resources": ("Resource",),
    "arqonce.schedules.schedule": ("Schedule",),
    "arqonce.settings.queue": ("QueueSettings",),
    "arqonce.settings.worker": ("Settings", "WorkerSettings"),
    "arqonce.spec": ("JobSpec", "Refusal", "Registry"),
    "arqonce.tracing": ("incoming_trace",),
    "arqonce.wire.codec": ("decode", "encode"),
    "arqonce.wire.status": ("JobStatus",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
"""The module that defines each name. The imports above declare the same for type checkers."""


def __getattr__(name: str) -> object:
    """Import the name at its first use; for ``from arqonce import *`` all for which the needed packages are there."""
    if name == "__all__":
        return [one for one in _HOME_OF if _is_there(one)]
    if (module := _HOME_OF.get(name)) is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    try:
        value = globals()[name] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("arqonce"):
            raise
        raise ImportError(
            f"arqonce.{name} needs {error.name}: pip install 'arqonce[worker]'", name=error.name
        ) from error
    return value


def _is_there(name: str) -> bool:
    try:
        __getattr__(name)
    except ImportError:
        return False
    return True


def __dir__() -> list[str]:
    """List all names, including those not loaded yet."""
    return sorted({*globals(), *_HOME_OF})
