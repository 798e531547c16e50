"""Finds out how a file of people is written, by reading all of it once. Stores nothing."""

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from people.columns import Columns, Mapping, count_recognised, find_columns, is_western
from people.encoding import GUESSED, doubt_about, encoding_of, errors_of, readable
from people.records import DELIMITERS, Lines, Record, take_delimiter, take_record, take_records
from people.rows import PeopleFileError, printable

REASON = "refused because"
"""The column that is added to refused rows. It is dropped when they are read again."""

_LONGEST_HEADER = 50
"""Lines in which a header ends: names of columns may have line breaks, and empty lines may precede them."""


@dataclass(frozen=True)
class Layout:
    """How a file is written, and where in it people are."""

    encoding: str
    delimiter: str
    header: list[str]
    columns: Columns
    rows: int = 0

    @property
    def width(self) -> int:
        """The number of columns without those at the end that have no name."""
        return max(at for at, column in enumerate(self.header, start=1) if column.strip())

    def own(self, values: Sequence[str]) -> list[str]:
        """Return the values of a row without the reason of an earlier import, all of them readable."""
        reasons = {at for at, column in enumerate(self.header) if column.strip() == REASON}
        return [readable(value, self.encoding) for at, value in enumerate(values) if at not in reasons]


@contextmanager
def open_lines(binary: BinaryIO, encoding: str, where: str) -> Iterator[Lines]:
    """Open the text of a file, from its beginning. The file stays open."""
    binary.seek(0)
    text = io.TextIOWrapper(binary, encoding, errors_of(encoding), newline="")
    try:
        yield Lines(text, where)
    finally:
        text.detach()


def find_layout(binary: BinaryIO, where: str, *, encoding: str | None, mappings: Sequence[Mapping]) -> Layout:
    """Read all of the file. ``encoding`` and ``mappings`` are what a person has decided.

    Raises:
        PeopleFileError: it is no list of people, or its columns or its encoding are in doubt.
    """
    is_guess = encoding is None
    encoding = encoding_of(binary, declared=encoding, where=where)
    is_guess = is_guess and encoding == GUESSED
    with open_lines(binary, encoding, where) as lines:
        delimiter = take_delimiter(lines) or _best_delimiter(lines, mappings)
        header = take_record(lines, delimiter) or Record(1, [])
        doubts = _Doubts(header.values, where, is_western(header.values)) if is_guess else None
        if doubts:
            doubts.look(header, range(len(header.values)))
        records = take_records(lines, delimiter)
        first = list(itertools.islice(records, 1))
        example = first[0].values if first else ()
        columns = find_columns(header.values, mappings, example=example, where=where)
        rows = 0
        for record in itertools.chain(first, records):  # all of them: what is no text or no CSV file is found here
            rows += 1
            if doubts:
                doubts.look(record, columns.used)
    return Layout(encoding, delimiter, header.values, columns, rows)


@dataclass(frozen=True)
class _Doubts:
    """Looks for values of a file, whose encoding was guessed, that may mean something else."""

    header: Sequence[str]
    where: str
    is_western: bool

    def look(self, record: Record, columns: Iterable[int]) -> None:
        """Raise ``PeopleFileError`` at the first value in these columns that is in doubt."""
        for at in columns:
            value = record.values[at] if at < len(record.values) else ""
            if not value.isascii() and (doubt := doubt_about(value, is_western=self.is_western)):
                raise PeopleFileError(
                    f"the encoding of {self.where} is in doubt: in line {record.line}, column "
                    f"{printable(self.header[at])}, stands {printable(doubt.reading)} in {doubt.encoding}, and "
                    f"{printable(doubt.other_reading)} in {doubt.other_encoding}. Nothing was stored. Choose with "
                    f"--encoding {doubt.encoding}, --encoding {doubt.other_encoding}, or another one"
                )


def _best_delimiter(lines: Lines, mappings: Sequence[Mapping]) -> str:
    """Return the delimiter with which most columns are recognised; of several, that with most columns."""
    head = [line for _ in range(_LONGEST_HEADER) if (line := lines.take())]
    lines.put_back(head)

    def fits(delimiter: str) -> tuple[int, int]:
        header = take_record(Lines(io.StringIO("".join(head), newline=""), "the header"), delimiter)
        values = header.values if header else []
        return count_recognised(values, mappings), len(values)

    return max(DELIMITERS, key=fits)
