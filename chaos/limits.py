"""Jobs of a limited kind, whose handlers count each other: ``WORKER_REGISTRY=chaos.limits:REGISTRY``.

Each takes one of its tenant's places, a lock on a file that the kernel frees when the process dies, whatever Redis
knows. ``CHAOS_PLACES`` names the folder of these files, and of what is written down about jobs that found none.
"""

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.limits import Limit
from arqonce.payloads import Payload
from arqonce.spec import JobSpec, Registry
from db.users import insert_user
from jobs.fields import UserName
from jobs.payloads import UserView

PLACES = "CHAOS_PLACES"
"""Environment variable of workers: the folder."""

MOST = 2
"""Most jobs of a tenant at once."""

TENANTS = 3

_PAUSE_S = 0.2
"""How long a job holds its place, in seconds."""

_MAX_ATTEMPTS = 50
"""Many, because faults that are no outages end attempts."""

_OVER = "over"
"""File with a line for each job that found no place."""


class Over(NamedTuple):
    """A job that ran though as many as may run already did."""

    tenant: int
    at: float
    """Seconds since 1970."""


class Limited(Payload[UserView]):
    """Store a user, and hold one of the tenant's places meanwhile."""

    job_name: ClassVar[str] = "limited"
    name: UserName
    tenant: int


async def limited(session: AsyncSession, payload: Limited) -> UserView:
    """Store the user."""
    with _place(Path(os.environ[PLACES]), payload.tenant):
        user = await insert_user(session, payload.name)
        await asyncio.sleep(_PAUSE_S)
    return UserView(id=user.id, name=user.name, email=user.email, created_at=user.created_at)


@contextmanager
def _place(folder: Path, tenant: int) -> Iterator[None]:
    with ExitStack() as stack:
        for number in range(MOST):
            file = stack.enter_context((folder / f"{tenant}.{number}").open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            break
        else:
            with (folder / _OVER).open("a") as over:
                over.write(json.dumps(Over(tenant, time.time())) + "\n")
        yield


def read_over(folder: Path) -> list[Over]:
    """Return the jobs that were too many."""
    file = folder / _OVER
    return [Over(*json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


REGISTRY = Registry(
    JobSpec(Limited, limited, max_attempts=_MAX_ATTEMPTS, limits=[Limit(concurrency=MOST, by="tenant")]),
)
"""The limited jobs."""
