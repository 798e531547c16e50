"""The name of the running command, for messages."""

from contextvars import ContextVar

PROGRAM: ContextVar[str] = ContextVar("program", default="arqonce")
"""Set once, before a command begins."""


def program() -> str:
    """Return the application's name."""
    return PROGRAM.get()
