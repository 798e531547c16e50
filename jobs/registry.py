"""The registry: which handler runs which payload, with which limits."""

from datetime import timedelta

from arqonce import JobSpec, Refusal, Registry
from db.tables import SCHEMA
from jobs.payloads import CreateUser, CreateUsers, EmailTakenError, FindUser, GetOrCreateUser
from jobs.users import (
    EMAIL_TAKEN,
    create_user,
    create_user_batch,
    create_users,
    find_user,
    find_user_batch,
    get_or_create_user,
    get_or_create_user_batch,
)

_EMAIL_TAKEN = Refusal(error=EmailTakenError, message=EMAIL_TAKEN)

REGISTRY = Registry(
    JobSpec(CreateUser, create_user, batch=create_user_batch, refusals={"users_email_key": _EMAIL_TAKEN}),
    JobSpec(GetOrCreateUser, get_or_create_user, batch=get_or_create_user_batch),
    JobSpec(FindUser, find_user, batch=find_user_batch, reads_only=True),
    JobSpec(CreateUsers, create_users, deadline=timedelta(minutes=1)),
    schema=SCHEMA,
)
"""The jobs of this worker, one per line. WORKER_REGISTRY adds the jobs of other projects."""
