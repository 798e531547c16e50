"""Reading people from CSV files. No server is needed."""

from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from jobs.payloads import NewUser
from jobs.people_csv import PeopleFileError, Person, Refused, read_people


def _write(directory: Path, content: bytes) -> Path:
    file = directory / "people.csv"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize(
    "content",
    [
        "name,email\nZoë,Zoe@Example.org\n",
        "\ufeffName;E-Mail;Email\r\nZoë;x;zoe@example.org\r\n",
        "email\tname\nzoe@example.org\tZoë",
        '"name","email"\n"Zoë"," zoe@example.org "\n\n',
    ],
)
def test_each_usual_layout_is_read(tmp_path: Path, content: str) -> None:
    """Comma, semicolon or tab; any order of columns; BOM, CRLF, quotes, empty lines."""
    rows = list(read_people(_write(tmp_path, content.encode())))

    assert rows == [Person(2, NewUser(name="Zoë", email="zoe@example.org"))]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b",a@b.c", "name: must have 1 to 200 characters"),
        (b"Ann,nonsense", "email: is not an e-mail address such as jane@example.org"),
        (b"x" * 201 + b",a@b.c", "name: must have 1 to 200 characters"),
        (b"Ren\xe9,r@b.c", "the line is not UTF-8"),
        (b"Ann", "the line has 1 column, the header 2"),
        (b"Ann,a@b.c,more", "the line has 3 columns, the header 2"),
        (b'"Ann,a@b.c', "the line is not CSV: unexpected end of data"),
        (b"A\x00nn,a@b.c", "name: contains a control character"),
        (b"Bob,FIRST@example.org", "email: the same as on line 2"),
    ],
)
def test_a_bad_line_is_refused_alone_with_its_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    """The lines before and after it are read, and the line number is the file's."""
    content = b"name,email\nFirst,first@example.org\n" + line + b"\nLast,\n"

    first, refused, last = read_people(_write(tmp_path, content))

    assert isinstance(refused, Refused)
    assert (refused.line, refused.reason) == (3, reason)
    assert [first, last] == [
        Person(2, NewUser(name="First", email="first@example.org")),
        Person(4, NewUser(name="Last")),
    ]


def test_a_refused_line_is_shown_without_acting_on_a_terminal(tmp_path: Path) -> None:
    """Control characters and bytes that are no text are escaped; everything else stays as it is."""
    (refused,) = read_people(_write(tmp_path, b"name,email\n\x1b[31mZo\xc3\xab\xff,x\n"))

    assert isinstance(refused, Refused)
    assert refused.row == "\\x1b[31mZoë\\xff,x"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "missing: name, email"),
        (b"name\nAnn\n", "missing: email"),
        (b"Ann,a@b.c\n", "must name the columns name,email"),
        ("name,email\n".encode("utf-16"), "is UTF-16: save it as CSV in UTF-8"),
    ],
)
def test_a_file_that_is_no_list_of_people_says_the_cure(tmp_path: Path, content: bytes, text: str) -> None:
    """Nothing is read from it."""
    with pytest.raises(PeopleFileError, match=text):
        list(read_people(_write(tmp_path, content)))


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    """With its name."""
    with pytest.raises(PeopleFileError, match=r"cannot read .*nowhere.csv: No such file"):
        list(read_people(tmp_path / "nowhere.csv"))


def test_the_sample_has_every_kind_of_bad_row() -> None:
    """The file that ships with the project shows what it is for."""
    rows = list(read_people(Path(str(files("worker") / "sample" / "people.csv"))))

    reasons = Counter(row.reason.split("on line")[0] for row in rows if isinstance(row, Refused))
    assert len(rows) == 10_000
    assert {
        "name: must have 1 to 200 characters",
        "email: is not an e-mail address such as jane@example.org",
        "email: the same as ",
        "email: must have at most 254 characters",
        "the line is not UTF-8",
        "the line has 1 column, the header 2",
    } <= set(reasons)
    assert sum(reasons.values()) > 100
