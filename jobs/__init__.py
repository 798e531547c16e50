"""What a service needs to enqueue jobs. Importing this loads no SQLAlchemy, no driver and no arq."""

from jobs.client import Enqueued, JobClient, JobHandle, open_client
from jobs.failures import JobError, JobFailedError
from jobs.payloads import CreateUser, CreateUsers, FindUser, GetOrCreateUser, NewUser

__all__ = [
    "CreateUser",
    "CreateUsers",
    "Enqueued",
    "FindUser",
    "GetOrCreateUser",
    "JobClient",
    "JobError",
    "JobFailedError",
    "JobHandle",
    "NewUser",
    "open_client",
]
