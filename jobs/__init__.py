"""The names that other services import to enqueue these jobs. Loads no SQLAlchemy, no driver and no arq.

It is distributed as ``users_jobs``: this file, ``payloads.py`` and ``fields.py``. They therefore import each other
relatively.
"""

from .payloads import (
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
