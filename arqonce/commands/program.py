"""The name by which messages call the command that runs."""

from contextvars import ContextVar

PROGRAM: ContextVar[str] = ContextVar("program", default="arqonce")
"""Set once, before a command begins."""


def program() -> str:
    """Return the application's name."""
    return PROGRAM.get()
