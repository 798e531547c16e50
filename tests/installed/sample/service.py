"""A service that has users_jobs, and packages of its own that are called jobs and db."""

from datetime import timedelta
from typing import Any

import db
import jobs
from arqonce import JobClient, SyncJobClient, enqueue_in_sync
from users_jobs import CreateUser, EmailTakenError, GetOrCreateUser

OWNERS = (vars(jobs)["OWNER"], vars(db)["OWNER"])
LIMIT = timedelta(seconds=5)


async def sign_up(client: JobClient, name: str, email: str) -> str:
    """Store somebody, and say how it went."""
    handle = await client.enqueue(CreateUser(name=name, email=email), key=f"signup-{email}")
    if not handle.is_new:
        return "patience"
    try:
        return f"welcome, {(await handle.result(timeout=LIMIT)).name}"
    except EmailTakenError:
        return "we have met"
    except TimeoutError:
        return "come back later"


def sign_up_blocking(client: SyncJobClient, name: str) -> str:
    """Store somebody."""
    return f"welcome, {client.enqueue(CreateUser(name=name)).result(timeout=LIMIT).name}"


def order(session: Any, email: str, *, fails: bool = False) -> None:  # noqa: ANN401 - a session, or a mock
    """Promise a job in a transaction of the service."""
    with session.begin():
        enqueue_in_sync(session, GetOrCreateUser(name="Jim", email=email), key=email)
        if fails:
            raise ZeroDivisionError
