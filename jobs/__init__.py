"""What other services import to enqueue our jobs. Importing this loads no SQLAlchemy, no driver and no arq.

They get it as ``users_jobs``, which is this file, ``payloads.py`` and ``fields.py``, which is why these import each
other relatively.
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
