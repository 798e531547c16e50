"""Reads people from a CSV file, row by row, and reports why a row cannot be used. No queue."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from arqonce.wire.problems import problems_of
from jobs.payloads import NewUser
from people.columns import Mapping
from people.encoding import is_text
from people.layout import Layout, find_layout, open_lines
from people.records import Record, take_delimiter, take_record, take_records
from people.rows import PeopleFileError, Person, Refused, printable
from people.seen import Seen, open_seen


class _UnusableError(ValueError):
    """A row cannot be imported. The text gives the reason."""


class PeopleFile:
    """A file whose layout is known and not in doubt. Iterate over it once; its rows are read incrementally."""

    def __init__(self, binary: BinaryIO, layout: Layout, file: Path, seen: Seen) -> None:
        self.layout = layout
        self._binary, self._file, self._seen = binary, file, seen

    def __iter__(self) -> Iterator[Person | Refused]:
        """Yield each row in the order of the file, without the header and empty rows."""
        with _explained(self._file), open_lines(self._binary, self.layout.encoding, str(self._file)) as lines:
            take_delimiter(lines)
            take_record(lines, self.layout.delimiter)  # the header
            for record in take_records(lines, self.layout.delimiter):
                yield self._row(record)

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
            _require_text(binary, file)
            layout = find_layout(binary, str(file), encoding=encoding, mappings=mappings)
        yield PeopleFile(binary, layout, file, stack.enter_context(open_seen()))


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PeopleFileError(f"cannot read {file}: {error.strerror}") from error


def _require_text(binary: BinaryIO, file: Path) -> None:
    """Raise ``PeopleFileError`` for an empty file, and for other kinds of files that programs with people store."""
    start = binary.read(_LONGEST_START)
    binary.seek(0)
    if not start:
        raise PeopleFileError(f"{file} is empty")
    if what := next((what for first, what in _OTHER_KINDS.items() if start.upper().startswith(first)), None):
        raise PeopleFileError(f"{file} is {what}")


_WORKBOOK = "a workbook of Excel: save it as CSV UTF-8 (File, Save as)"

_OTHER_KINDS = {
    b"PK\x03\x04": _WORKBOOK,  # .xlsx
    bytes.fromhex("d0cf11e0a1b11ae1"): _WORKBOOK,  # .xls
    b"BEGIN:VCARD": "of vCards: export the contacts as CSV",
    b"\xef\xbb\xbfBEGIN:VCARD": "of vCards: export the contacts as CSV",
    b"\x1f\x8b": "compressed: unpack it first",
    b"%PDF": "a PDF: only CSV can be imported",
    b"SQLITE FORMAT 3": "a database of SQLite: export the table as CSV",
    b"\x7fELF": "a program",
    b"<!DOCTYPE": "a page of HTML: only CSV can be imported",
    b"<HTML": "a page of HTML: only CSV can be imported",
    b"<?XML": "XML: only CSV can be imported",
}
"""By the first bytes of a file, in capitals."""

_LONGEST_START = max(map(len, _OTHER_KINDS))


@contextmanager
def _rewindable(opened: BinaryIO) -> Iterator[BinaryIO]:
    """Yield the file; of a pipe, a copy that has no name."""
    if opened.seekable():
        yield opened
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(opened, copy)
        copy.seek(0)
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
    try:
        return NewUser(name=columns.name(values), email=columns.email(values))
    except ValidationError as error:
        raise _UnusableError(problems_of(error, NewUser, values)) from None


def _require_whole(value: str) -> None:
    """Refuse what another program has damaged before it wrote the file: nobody could mend it in the table."""
    if "\ufffd" in value:
        raise _UnusableError("a character was lost before this file was written: type it anew")
    if value.isascii():
        return
    with suppress(UnicodeError):
        meant = value.encode("cp1252").decode()
        raise _UnusableError(
            f"it was read in a wrong encoding before this file was written: {printable(meant)} is meant"
        )


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
