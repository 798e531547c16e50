"""Who runs PostgreSQL: ourselves, or ``nobody`` when we are root, which PostgreSQL refuses to run as."""

import os
import pwd

from arqonce.embedded.errors import EmbeddedServerError


def unprivileged_account() -> pwd.struct_passwd | None:
    """Return whom to run a server as that refuses root; ``None`` means as ourselves.

    Raises:
        EmbeddedServerError: we are root and there is no user ``nobody``.
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
