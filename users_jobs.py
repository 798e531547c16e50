"""The payloads, under the name by which other services install them: ``pip install users-jobs``."""

from jobs import (
    CreateUser,
    CreateUsers,
    EmailTakenError,
    FindUser,
    FoundOrCreated,
    FoundUsers,
    GetOrCreateUser,
    NewUser,
    StoredUser,
    StoredUsers,
    UserView,
)

__all__ = [
    "CreateUser",
    "CreateUsers",
    "EmailTakenError",
    "FindUser",
    "FoundOrCreated",
    "FoundUsers",
    "GetOrCreateUser",
    "NewUser",
    "StoredUser",
    "StoredUsers",
    "UserView",
]
