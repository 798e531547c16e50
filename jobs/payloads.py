"""The payloads and results of all jobs: the contract with every producer. No database, no Redis, no arq.

Renaming a class is safe. Changing a wire name or a field is not: jobs in the old form may still be queued.
"""

from datetime import datetime
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from arqonce import JobFailedError, Payload, Result

from .fields import EmailAddress, UserName

MAX_USERS = 1000
"""Most users in one ``CreateUsers``: well below the largest message, and a transaction of milliseconds."""

MAX_MATCHES = 100
"""Most users that one ``FindUser`` returns."""

_BIGINT = 2**63 - 1


class EmailTakenError(JobFailedError):
    """Another user has this e-mail."""

    code = "email_taken"


class UserView(Result):
    """A stored user."""

    id: int
    name: str
    email: str | None
    created_at: datetime


class CreateUser(Payload[UserView]):
    """Store one user. Fails with ``EmailTakenError`` if the e-mail is stored already."""

    job_name: ClassVar[str] = "create_user"
    name: UserName
    email: EmailAddress | None = None


class FoundOrCreated(Result):
    """The user with the e-mail asked for, and whether this job created it."""

    user: UserView
    is_new: bool


class GetOrCreateUser(Payload[FoundOrCreated]):
    """Find the user with this e-mail, or store it under this name. A stored name is left as it is."""

    job_name: ClassVar[str] = "get_or_create_user"
    name: UserName
    email: EmailAddress


class FoundUsers(Result):
    """The users that match, oldest first, at most ``MAX_MATCHES``; none is no failure."""

    users: list[UserView]

    @property
    def first(self) -> UserView | None:
        """The oldest match, ``None`` if there is none."""
        return self.users[0] if self.users else None


class FindUser(Payload[FoundUsers]):
    """Look users up by exactly one of id, e-mail and name."""

    job_name: ClassVar[str] = "find_user"
    id: Annotated[int, Field(ge=1, le=_BIGINT)] | None = None
    email: EmailAddress | None = None
    name: UserName | None = None

    @model_validator(mode="after")
    def _require_exactly_one(self) -> Self:
        if sum(value is not None for value in (self.id, self.email, self.name)) != 1:
            message = "give exactly one of id, email and name"
            raise ValueError(message)
        return self


class NewUser(BaseModel):
    """One of many users to store."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: UserName
    email: EmailAddress | None = None


class StoredUser(Result):
    """Where one of many users ended."""

    id: int
    is_new: bool


class StoredUsers(Result):
    """Where each user of a ``CreateUsers`` ended, in the order given."""

    users: list[StoredUser]


class CreateUsers(Payload[StoredUsers]):
    """Store many users in one transaction. One whose e-mail is stored already stays as it is and is answered too."""

    job_name: ClassVar[str] = "create_users"
    users: Annotated[list[NewUser], Field(min_length=1, max_length=MAX_USERS)]
