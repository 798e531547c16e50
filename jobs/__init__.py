"""What a service needs to enqueue jobs. Importing this loads no SQLAlchemy, no driver and no arq."""

from jobs.client import Enqueued, JobClient, JobHandle, open_client
from jobs.failures import EmailTakenError, JobError, JobFailedError
from jobs.outbox import Promised, enqueue_in, enqueue_in_sync
from jobs.payloads import (
    CreateUser,
    CreateUsers,
    FindUser,
    FoundOrCreated,
    FoundUsers,
    GetOrCreateUser,
    NewUser,
    StoredUsers,
    UserView,
)
from jobs.results import JobInfo, JobStatus
from jobs.sync_client import SyncJobClient, SyncJobHandle, build_sync_client, open_sync_client

__all__ = [
    "CreateUser",
    "CreateUsers",
    "EmailTakenError",
    "Enqueued",
    "FindUser",
    "FoundOrCreated",
    "FoundUsers",
    "GetOrCreateUser",
    "JobClient",
    "JobError",
    "JobFailedError",
    "JobHandle",
    "JobInfo",
    "JobStatus",
    "NewUser",
    "Promised",
    "StoredUsers",
    "SyncJobClient",
    "SyncJobHandle",
    "UserView",
    "build_sync_client",
    "enqueue_in",
    "enqueue_in_sync",
    "open_client",
    "open_sync_client",
]
