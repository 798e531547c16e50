"""The file of refused rows: it can be mended and imported like the one that the rows are from."""

import csv
import io
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from people.layout import REASON, Layout
from people.records import DELIMITERS
from people.rows import PeopleFileError, Refused

_HEADERS = (REASON, "line,reason,row")
"""What a file of refused rows has in its beginning: of this version, and of those that could not be imported."""

_BEGINNING = 100
"""Bytes in which this stands, after a byte order mark and a line with the delimiter."""


class RefusedRows:
    """Writes refused rows as they come: the file's own columns and delimiter, and the reason before them."""

    def __init__(self, output: IO[str], layout: Layout) -> None:
        self._output, self._layout = output, layout
        self._writer = csv.writer(output, delimiter=layout.delimiter)
        self.count = 0

    def add(self, rows: Iterable[Refused]) -> None:
        """Append these rows, after the header if they are the first."""
        for row in rows:
            if not self.count:
                self._write_header()
            self.count += 1
            values = map(_shown, self._layout.own(row.values))
            self._writer.writerow([f"line {row.line}: {row.reason}", *values])

    def _write_header(self) -> None:
        self._output.write("\N{BYTE ORDER MARK}")  # Excel takes UTF-8 for another encoding without it
        if self._layout.delimiter not in DELIMITERS:
            self._output.write(f"sep={self._layout.delimiter}\r\n")
        self._writer.writerow([REASON, *self._layout.own(self._layout.header)])


@contextmanager
def open_refused(file: Path) -> Iterator[IO[str]]:
    """Open the list of refused rows. It takes its place at the end: an import that fails leaves an earlier list alone.

    It is readable only by its owner, because it holds personal data. An empty one is removed.

    Raises:
        PeopleFileError: it cannot be written, or another kind of file has its name.
    """
    try:
        if file.exists() and not _is_ours(file):
            raise PeopleFileError(f"{file} is no list of refused rows, and would be overwritten: move it away")
        # Not through a symbolic link, which may lead to another user's file.
        place = os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600), "wb")
    except OSError as error:
        text = f"cannot write the list of refused rows, {file}: {error.strerror}; import a copy from another folder"
        raise PeopleFileError(text) from error
    try:
        with place, tempfile.TemporaryFile(dir=file.parent) as unnamed:
            rows = io.TextIOWrapper(unnamed, "utf-8", newline="")
            yield rows
            rows.flush()
            unnamed.seek(0)
            place.truncate()
            shutil.copyfileobj(unnamed, place)
    finally:
        if not file.stat().st_size:
            file.unlink()


def _is_ours(file: Path) -> bool:
    if not file.is_file():
        return False  # a device would be removed
    with file.open("rb") as opened:
        beginning = opened.read(_BEGINNING)
    return not beginning or any(header.encode() in beginning for header in _HEADERS)


def _shown(value: str) -> str:
    """Return the value with control characters escaped, which could act on a terminal; line breaks stay."""
    if value.isprintable():
        return value
    return "".join(
        ascii(one)[1:-1] if unicodedata.category(one) == "Cc" and one not in "\t\r\n" else one for one in value
    )
