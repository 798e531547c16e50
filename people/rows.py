"""What the rows of a file of people become. No file and no queue."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from arqonce import UsageError
from jobs.payloads import NewUser


class PeopleFileError(UsageError):
    """The file as a whole cannot be read, and nothing of it was stored. The text names the cure."""


@dataclass(frozen=True)
class Person:
    """A row that can be imported. Lines are numbered from 1, the first line of the file."""

    line: int
    user: NewUser
    number: int = 1
    """Which of the rows with this name and no e-mail it is, counted from 1; of no meaning with an e-mail."""
    values: Sequence[str] = field(default=(), compare=False)
    """All columns of the row, as they stand in the file."""


@dataclass(frozen=True)
class Refused:
    """A row that cannot be imported."""

    line: int
    reason: str
    values: Sequence[str] = field(default=(), compare=False)
    """All columns of the row, as they stand in the file."""


def printable(text: str) -> str:
    """Return the beginning of a text in quotes, with what acts on a terminal escaped."""
    return repr(text.strip()[:_SHOWN])


_SHOWN = 60
"""Most characters of a value that a message shows."""
