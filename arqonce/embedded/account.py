"""Chooses the user that runs PostgreSQL: the current one, or ``nobody`` instead of root, which PostgreSQL refuses."""

import os
import pwd

from arqonce.embedded.errors import EmbeddedServerError


def unprivileged_account() -> pwd.struct_passwd | None:
    """Return the user for a server that refuses to run as root; ``None`` means the current user.

    Raises:
        EmbeddedServerError: the current user is root and there is no user ``nobody``.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("nobody")
    except KeyError as error:
        raise EmbeddedServerError(
            "PostgreSQL refuses to run as root, and this system has no user nobody to run it as. "
            "Cure: run as an ordinary user, add a user nobody, or point DATABASE_URL at any PostgreSQL 15+."
        ) from error


def require_entry(account: pwd.struct_passwd | None) -> None:
    """Check that the user has a name, which ``initdb`` looks up. Containers often run as a number without one.

    Raises:
        EmbeddedServerError: it has none.
    """
    try:
        pwd.getpwuid(account.pw_uid if account else os.geteuid())
    except KeyError as error:
        raise EmbeddedServerError(
            f"PostgreSQL creates no database for the user {os.geteuid()}, who has no entry in /etc/passwd. "
            "Cure: run as a user who has one, mount a file with one into the container, or point DATABASE_URL at any "
            "PostgreSQL 15+."
        ) from error
