"""What PgBouncer says by itself, which has one SQLSTATE for nearly all: the reason, and the cure."""

from collections.abc import Iterator

from arqonce.causes import causes

_PROTOCOL_VIOLATION = "08P01"

_SAID = (
    (
        "unsupported startup parameter",
        "a pooler takes no settings with a connection",
        "if it is PgBouncer in transaction mode, set DATABASE_PGBOUNCER=true",
    ),
    ("no such database", "PgBouncer has no such database", "add it to [databases], or correct DATABASE_URL"),
    ("does not exist", "PgBouncer's database is not on the server", "create it, or correct [databases]"),
    ("authentication failed", "PgBouncer refuses the user or password", "correct DATABASE_URL, or its auth_file"),
    ("no such user", "PgBouncer refuses the user or password", "correct DATABASE_URL, or its auth_file"),
    (
        "query_wait_timeout",
        "PgBouncer has had no free connection to the server in time",
        "is the server up, is default_pool_size large enough?",
    ),
    ("no more connections allowed", "PgBouncer accepts no more connections", "raise its max_client_conn"),
    ("server login", "PgBouncer cannot log in to the server", "its log says why"),
)
"""A part of its text, the reason, and the cure. Versions from 1.21 on have true SQLSTATEs for some of them."""


def said_by_pooler(error: BaseException) -> tuple[str, str] | None:
    """Return reason and cure, without data, if the error is one of PgBouncer's own; ``None`` for all others."""
    texts = list(_texts(error))
    return next(((why, cure) for part, why, cure in _SAID if any(part in text for text in texts)), None)


def _texts(error: BaseException) -> Iterator[str]:
    return (str(part) for part in causes(error) if getattr(part, "sqlstate", None) == _PROTOCOL_VIOLATION)
