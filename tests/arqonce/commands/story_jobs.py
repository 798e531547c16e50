"""Jobs whose story ``job show`` tells."""

from typing import ClassVar

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobFailedError, JobSpec, Payload, Registry, Result, enqueue_in


class Fail(Payload[Result]):
    """Fail, with a person's data in the text of the error."""

    job_name: ClassVar[str] = "fail"
    email: str


class Lead(Payload[Result]):
    """Promise two follow-ups."""

    job_name: ClassVar[str] = "lead"


class Refuse(Payload[Result]):
    """Refuse with a text of the handler's own."""

    job_name: ClassVar[str] = "refuse"
    email: str


class TakenError(JobFailedError):
    """The handler's refusal."""

    code = "taken"


async def fail(_session: AsyncSession, payload: Fail) -> Result:
    """Fail."""
    raise LookupError(payload.email)


async def lead(session: AsyncSession, _payload: Lead) -> Result:
    """Promise."""
    await enqueue_in(session, Fail(email="x"))
    await enqueue_in(session, Refuse(email="x"))
    return Result()


async def refuse(_session: AsyncSession, payload: Refuse) -> Result:
    """Refuse."""
    raise TakenError(payload.email)


REGISTRY = Registry(JobSpec(Fail, fail, max_attempts=2), JobSpec(Lead, lead), JobSpec(Refuse, refuse))
