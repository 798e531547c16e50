"""Reads people from a CSV file, row by row, and reports why a row cannot be used. No queue."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from arqonce.wire.problems import problems_of
from jobs.payloads import NewUser
from people.cells import no_person
from people.columns import Mapping
from people.encoding import is_text, meant_by
from people.kinds import START, require_text
from people.layout import Layout, find_layout, open_lines
from people.records import Record
from people.rows import PeopleFileError, Person, Refused, printable
from people.seen import Seen, open_seen


class _UnusableError(ValueError):
    """A row cannot be imported. The text gives the reason."""


class PeopleFile:
    """A file whose layout is known and not in doubt. Iterate over it once; its rows are read incrementally."""

    def __init__(self, binary: BinaryIO, layout: Layout, file: Path, state: tuple[int, int], seen: Seen) -> None:
        self.layout = layout
        self._binary, self._file, self._state, self._seen = binary, file, state, seen

    def __iter__(self) -> Iterator[Person | Refused]:
        """Yield each row in the order of the file, without the header and empty rows.

        Raises:
            PeopleFileError: another program has changed the file since it was opened, and nobody has looked at it.
        """
        with _explained(self._file), open_lines(self._binary, self.layout.encoding, str(self._file)) as lines:
            for record in self.layout.records(lines):
                self.require_unchanged()
                yield self._row(record)
            self.require_unchanged()

    def require_unchanged(self) -> None:
        """Raise ``PeopleFileError`` if the file is not what was looked at."""
        if _state(self._binary) != self._state:
            text = f"{self._file} was changed while it was read: import it again when it is complete"
            raise PeopleFileError(f"{text}; nobody is stored twice by it")

    def _row(self, record: Record) -> Person | Refused:
        try:
            user = _read_user(record, self.layout)
        except _UnusableError as error:
            return Refused(record.line, str(error), record.values)
        if user.email is None:
            return Person(record.line, user, self._seen.count(user.name), values=record.values)
        first = self._seen.first_line(user.email, record.line)
        if first != record.line:
            return Refused(record.line, f"email: the same as on line {first}", record.values)
        return Person(record.line, user, values=record.values)


@contextmanager
def open_people(file: Path, *, encoding: str | None = None, mappings: Sequence[Mapping] = ()) -> Iterator[PeopleFile]:
    """Open a file of people. All of it is read once before the first row: a file in doubt yields none.

    Raises:
        PeopleFileError: the file cannot be read, its columns are not known, or its encoding is in doubt.
    """
    with ExitStack() as stack:
        with _explained(file):
            binary = stack.enter_context(_rewindable(stack.enter_context(file.open("rb"))))
            state = _state(binary)
            require_text(binary.read(START), str(file))
            binary.seek(0)
            layout = find_layout(binary, str(file), encoding=encoding, mappings=mappings)
        people = PeopleFile(binary, layout, file, state, stack.enter_context(open_seen()))
        people.require_unchanged()
        yield people


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PeopleFileError(f"cannot read {file}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise PeopleFileError(f"cannot note which e-mails {file} has had: {error}; {_ROOM}") from error


def _state(binary: BinaryIO) -> tuple[int, int]:
    stat = os.fstat(binary.fileno())
    return stat.st_size, stat.st_mtime_ns


_ROOM = "set TMPDIR to a folder with room for temporary files"


@contextmanager
def _rewindable(opened: BinaryIO) -> Iterator[BinaryIO]:
    """Yield the file; of a pipe, a copy that has no name."""
    if opened.seekable():
        yield opened
        return
    with tempfile.TemporaryFile() as copy:
        try:
            shutil.copyfileobj(opened, copy)
            copy.seek(0)
        except OSError as error:
            text = f"cannot copy {opened.name}, which can be read only once: {error.strerror}; {_ROOM}"
            raise PeopleFileError(text) from error
        yield copy


def _read_user(record: Record, layout: Layout) -> NewUser:
    if record.fault:
        raise _UnusableError(record.fault)
    columns, values = layout.columns, _fitted(record.values, layout)
    if not all(is_text(values[at]) for at in columns.used):
        raise _UnusableError(f"the row is not {layout.encoding}; what is shown is a guess")
    if any(values[at].count('"') % 2 for at in columns.used):
        # A row that was cut at a wrong quotation mark, or one that was refused for that and not mended.
        raise _UnusableError("a value has an odd number of quotation marks: is a row cut in two?")
    for at in columns.used:
        _require_whole(values[at])
    name, email = columns.name(values), columns.email(values)
    if reason := no_person(name, email):
        raise _UnusableError(f"name: {reason}")
    try:
        return NewUser(name=name, email=email)
    except ValidationError as error:
        raise _UnusableError(problems_of(error, NewUser, values)) from None


def _require_whole(value: str) -> None:
    """Refuse what another program has damaged before it wrote the file: nobody could mend it in the table."""
    if "\ufffd" in value:
        raise _UnusableError("a character was lost before this file was written: type it anew")
    if meant := meant_by(value):
        raise _UnusableError(f"another program garbled it before this file was written: {printable(meant)} is meant")


def _fitted(values: list[str], layout: Layout) -> list[str]:
    """Return the values without empty ones beyond the header. Excel leaves out empty ones at the end of some rows."""
    count = len(values)
    while count > len(layout.header) and not values[count - 1].strip():
        count -= 1
    is_whole = layout.width <= count <= len(layout.header)
    if not is_whole and not (max(layout.columns.used) < count < layout.width and layout.columns.email(values)):
        # A row that is short and has no e-mail may be the rest of a row that a line break without quotes has broken.
        raise _UnusableError(f"the row has {_counted(count)}, the header {layout.width}")
    return values


def _counted(columns: int) -> str:
    return "1 column" if columns == 1 else f"{columns} columns"
