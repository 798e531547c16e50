"""Jobs that share transactions, of which one may fail the others: ``WORKER_REGISTRY=chaos.turns:REGISTRY``."""

from typing import ClassVar

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.payloads import Payload
from arqonce.spec import JobSpec, Refusal, Registry
from db.users import insert_user
from jobs.fields import EmailAddress, UserName
from jobs.payloads import EmailTakenError, UserView


class TakeTurn(Payload[UserView]):
    """Store a user in a transaction with others; a taken e-mail is refused, after the insert has failed."""

    job_name: ClassVar[str] = "take_turn"
    name: UserName
    email: EmailAddress | None = None


async def take_turn(session: AsyncSession, payload: TakeTurn) -> UserView:
    """Store the user."""
    user = await insert_user(session, payload.name, payload.email)
    return UserView(id=user.id, name=user.name, email=user.email, created_at=user.created_at)


_TAKEN = Refusal(error=EmailTakenError, message="the e-mail is taken")

REGISTRY = Registry(JobSpec(TakeTurn, take_turn, shares_transaction=True, refusals={"users_email_key": _TAKEN}))
"""The jobs."""
