"""What holds for the reading of people whatever a file has: hypothesis looks for a file for which it does not."""

import csv
import io
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from hypothesis import assume, example, given
from hypothesis import strategies as st

from people.file import open_people
from people.records import DELIMITERS, Lines, take_records
from people.rows import PeopleFileError
from tests.people.files import rows_of, text_of

_PIECES = st.sampled_from(
    [b"name", b"email", b"E-Mail", b"a@b.c", b",", b";", b"\t", b"|", b'"', b'""', b"\r", b"\n", b"\r\n", b"sep=;\n",
     b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\0", b"Ann", b" ", "ä".encode(), b"\xe4", b"\x81", b"\xed\xa0\x80"]
)  # fmt: skip
_HEADERS = st.sampled_from([b"", b"name,email\n", b"Vorname;Name;E-Mail\r\n", "name\temail\n".encode("utf-16")])
_FILES = st.builds(
    lambda header, pieces: header + b"".join(pieces), _HEADERS, st.lists(_PIECES | st.binary(max_size=4))
)
_ENCODINGS = st.sampled_from(
    [None, "utf-8", "cp1252", "utf-16", "utf-16-le", "utf-7", "shift_jis", "iso2022_jp", "ascii"]
)


@given(content=_FILES, encoding=_ENCODINGS)
@example(content=b"name,email\n" + b'"a,b\n' * 3000, encoding=None)
def test_any_bytes_are_rows_or_one_clear_error(content: bytes, encoding: str | None) -> None:
    """Never another exception, and no error after the file is opened: nothing of it is stored then."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        file = Path(directory) / "people.csv"
        file.write_bytes(content)
        try:
            people = stack.enter_context(open_people(file, encoding=encoding))
        except PeopleFileError as error:
            assert 20 < len(str(error).replace("\n", "")) == len(str(error))  # noqa: PT017 - rows are as good
            return

        rows = list(people)

    assert len(rows) == people.layout.rows
    assert [row.line for row in rows] == sorted({row.line for row in rows})


_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=8) | st.sampled_from(
    ['"', '""', "\r\n", "\n", "\r", ",", ";", "\t", "|", '",', ';"', "sep=;", " ", "a@b.c"]
)


@given(
    table=st.lists(st.tuples(_TEXTS, _TEXTS, _TEXTS).filter(lambda row: any(value.strip() for value in row))),
    delimiter=st.sampled_from(DELIMITERS),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    line_end=st.sampled_from(["\r\n", "\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]),
)
def test_nothing_is_lost_or_merged(
    table: list[tuple[str, str, str]], delimiter: str, quoting: Literal[0, 1], line_end: str, encoding: str
) -> None:
    """What Python's csv writer has written is read as it was: every value of every row, in their order."""
    if line_end != "\r\n":  # before Python 3.13, the writer quotes no other line ends than its own
        quoting = csv.QUOTE_ALL
    content = text_of([("Note", "Name", "E-Mail"), *table], delimiter, line_end, quoting).encode(encoding)
    declared = encoding if encoding in {"utf-16-le", "utf-16-be"} else None

    with tempfile.TemporaryDirectory() as directory:
        rows = rows_of(Path(directory), content, encoding=declared)

    assert [tuple(row.values) for row in rows] == table


def _is_utf8(content: bytes) -> bool:
    return "\ufffd" not in content.decode(errors="replace")


_WESTERN = st.text(st.characters(codec="cp1252", exclude_categories=["Cc"]), max_size=8)


@given(table=st.lists(st.tuples(_WESTERN, _WESTERN).filter(lambda row: any(value.strip() for value in row))))
def test_cp1252_is_read_as_it_is_or_refused(table: list[tuple[str, str]]) -> None:
    """A wrong guess would be read as other letters; what is declared is never in doubt."""
    content = text_of([("Name", "E-Mail"), *table], ";").encode("cp1252")
    assume(content.isascii() or not _is_utf8(content))  # as "Ã¤" is, which is in no name

    with tempfile.TemporaryDirectory() as directory:
        declared = rows_of(Path(directory), content, encoding="cp1252")
        try:
            guessed = rows_of(Path(directory), content)
        except PeopleFileError:
            guessed = declared

    assert [tuple(row.values) for row in declared] == table
    assert guessed == declared


@given(texts=st.lists(st.text('"\r\n,ab', max_size=12)))
def test_no_line_is_lost_where_quotes_are_broken(texts: list[str]) -> None:
    """Each letter of the text is in exactly one record."""
    text = "\n".join(texts)

    records = list(take_records(Lines(io.StringIO(text, newline=""), "the text"), ","))

    letters = "".join(value for record in records for value in record.values)
    assert [letter for letter in letters if letter in "ab"] == [letter for letter in text if letter in "ab"]
