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
