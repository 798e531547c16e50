"""Makes files of people as programs write them, and reads them."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from people.columns import read_mapping
from people.file import open_people
from people.rows import Person, Refused

ZOE, GROSS = ("Zoë Groß", "zoe@example.org"), ("Jörg €uro-Müller", "jm@example.org")


def text_of(
    rows: Sequence[Sequence[str]],
    delimiter: str = ",",
    line_end: str = "\r\n",
    quoting: Literal[0, 1] = csv.QUOTE_MINIMAL,
) -> str:
    """Return what Python's csv writer makes of the rows."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=line_end, quoting=quoting).writerows(rows)
    return text.getvalue()


def rows_of(
    directory: Path, content: bytes, *, encoding: str | None = None, maps: Sequence[str] = ()
) -> list[Person | Refused]:
    """Return all rows of a file with this content."""
    file = directory / "people.csv"
    file.write_bytes(content)
    with open_people(file, encoding=encoding, mappings=[read_mapping(text) for text in maps]) as people:
        return list(people)


def people_of(
    directory: Path, content: bytes, *, encoding: str | None = None, maps: Sequence[str] = ()
) -> list[tuple[str, str | None] | str]:
    """Return name and e-mail of each row of a file with this content, or the reason why it is refused."""
    rows = rows_of(directory, content, encoding=encoding, maps=maps)
    return [(row.user.name, row.user.email) if isinstance(row, Person) else row.reason for row in rows]
