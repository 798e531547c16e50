"""Reading people from files as Excel, Google Contacts, Outlook and others write them. No server is needed."""

import os
import threading
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from jobs.payloads import NewUser
from people.file import open_people
from people.rows import PeopleFileError, Person, Refused
from tests.people.files import GROSS, ZOE, people_of, rows_of, text_of

_EXCEL = text_of([("Name", "E-Mail", "Ort"), (*ZOE, "Köln"), (*GROSS, "Bonn")], ";")
_ADDRESS = '12 "Rose" Street\r\n\r\nYork; Ontario\nCanada, N1'
_GOOGLE = text_of(
    [
        ("First Name", "Middle Name", "Last Name", "Notes", "E-mail 1 - Label", "E-mail 1 - Value", "E-mail 2 - Value"),
        ("Zoë", "", "Groß", "a\nb", "* Work", ZOE[1] + " ::: other@example.org", "third@example.org"),
        ("Jörg", "", "€uro-Müller", "", "", GROSS[1], ""),
    ],
    line_end="\n",
)
_OLD_GOOGLE = text_of(
    [
        ("Name", "Given Name", "Additional Name", "Family Name", "E-mail 1 - Type", "E-mail 1 - Value"),
        (ZOE[0], "Zoë", "", "Groß", "*", ZOE[1]),
        ("", "Jörg", "", "€uro-Müller", "*", GROSS[1]),
    ]
)
_OUTLOOK = text_of(
    [
        ("Title", "First Name", "Last Name", "Company", "Home Street", "E-mail Address", "E-mail Display Name"),
        ("", "Zoë", "Groß", "", _ADDRESS, ZOE[1], "Zoë (zoe@example.org)"),
        ("Dr.", "Jörg", "€uro-Müller", "", "", GROSS[1], ""),
    ]
)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(
            _EXCEL.replace(";Bonn", '; "Bonn"').replace(f";{GROSS[1]}", f'; "{GROSS[1]}"').encode(),
            id="spaces behind the delimiter",
        ),
        pytest.param(_EXCEL.encode("cp1252"), id="Excel, German"),
        pytest.param(_EXCEL.encode("utf-8-sig"), id="Excel, German, UTF-8"),
        pytest.param(_EXCEL.replace(";", ",").encode("utf-8-sig"), id="Excel, English"),
        pytest.param(_EXCEL.replace(";", "\t").encode("utf-16"), id="Excel, Unicode text"),
        pytest.param("\ufeff".encode("utf-16-be") + _EXCEL.replace(";", "\t").encode("utf-16-be"), id="UTF-16 BE"),
        pytest.param(b"sep=;\r\n" + _EXCEL.encode("cp1252"), id="sep="),
        pytest.param(b"\xef\xbb\xbfsep=#\r\n" + _EXCEL.replace(";", "#").encode(), id="sep=, BOM, odd delimiter"),
        pytest.param(_EXCEL.replace(";", "|").encode(), id="pipe"),
        pytest.param(f"Kunden, Stand 2026;;\r\n\r\n{_EXCEL}".encode("cp1252"), id="titles above the header"),
        pytest.param(f"Table 1\n{_EXCEL}".encode(), id="Apple Numbers"),
        pytest.param((_EXCEL + "\ufeff" + _EXCEL[:17]).encode(), id="the header again"),
        pytest.param(_EXCEL.encode() + b"\x1a", id="the end of a file of DOS"),
        pytest.param(_EXCEL.encode() + bytes(1000), id="blocks that were not written"),
        pytest.param(_EXCEL.replace("\r\n", "\r").encode("cp1252"), id="CR alone"),
        pytest.param(_EXCEL.replace("\r\n", "\n\n;;\n").encode(), id="empty lines and rows"),
        pytest.param(_EXCEL.replace("\r\n", ";\r\n").encode(), id="an empty column at the end"),
        pytest.param(_EXCEL.replace("Bonn\r\n", "Bonn;;\r\n").encode(), id="empty values beyond the header"),
        pytest.param(_EXCEL.replace(";Ort", ";Ort;").encode(), id="a column without a name, left out of rows"),
        pytest.param(_EXCEL.replace(";Bonn", "").encode(), id="Excel leaves out empty values at the end"),
        pytest.param(_GOOGLE.encode(), id="Google Contacts"),
        pytest.param(_OLD_GOOGLE.encode(), id="Google Contacts, older"),
        pytest.param(_OLD_GOOGLE.encode("utf-16"), id="Google Contacts, older, UTF-16"),
        pytest.param(_OUTLOOK.encode("cp1252"), id="Outlook"),
        pytest.param(_OUTLOOK.encode(), id="Outlook, UTF-8"),
    ],
)
def test_a_file_of_a_usual_program_is_read(tmp_path: Path, content: bytes) -> None:
    """Each of these holds the same two people, with Umlauts and the Euro sign."""
    assert people_of(tmp_path, content) == [ZOE, GROSS]


@pytest.mark.parametrize("line_end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
def test_quoted_values_may_have_line_breaks_quotes_and_delimiters(tmp_path: Path, encoding: str, line_end: str) -> None:
    """A postal address is one value; the line of a row is that on which it begins."""
    table = [("Address", "Name", "E-Mail"), *((_ADDRESS, f"Zoë {at}", f"z{at}@example.org") for at in range(300))]
    rows = rows_of(tmp_path, text_of(table, ";", line_end).encode(encoding))

    assert [row.values for row in rows] == [list(row) for row in table[1:]]
    assert [row.line for row in rows][:3] == [2, 6, 10]
    assert all(isinstance(row, Person) for row in rows)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b",a@b.c", "name: must have 1 to 200 characters"),
        (b"Ann,nonsense", "email: is not an e-mail address such as jane@example.org"),
        (b"x" * 201 + b",a@b.c", "name: must have 1 to 200 characters"),
        (b"Ren\xe9,r@b.c", "the row is not utf-8; what is shown is a guess"),
        (b"Ann", "the row has 1 column, the header 2"),
        (b"Ann,a@b.c,more", "the row has 3 columns, the header 2"),
        (b'"Ann,a@b.c', "the row is not CSV: unexpected end of data"),
        (b'"A"nn,a@b.c', "the row is not CSV: ',' expected after '\"'"),
        (b'"""Ann",a@b.c', "a value has an odd number of quotation marks: is a row cut in two?"),
        (b"A\x00nn,a@b.c", "name: contains a control character"),
        ("J\ufffdrgen,j@b.c".encode(), "a character was lost before this file was written: type it anew"),
        ("JÃ¼rgen,j@b.c".encode(), "another program garbled it before this file was written: 'Jürgen' is meant"),
        (b"'Ann','a@b.c'", "email: is not an e-mail address such as jane@example.org"),
        (b"Bob,FIRST@example.org", "email: the same as on line 2"),
    ],
)
def test_a_bad_row_is_refused_alone_with_its_reason(tmp_path: Path, line: bytes, reason: str) -> None:
    """The rows before and after it are read, and the line number is the file's."""
    content = b"name,email\nFirst,first@example.org\n" + line + b"\nLast,\n"

    first, refused, last = rows_of(tmp_path, content, encoding="utf-8")

    assert isinstance(refused, Refused)
    assert (refused.line, refused.reason) == (3, reason)
    assert [first, last] == [
        Person(2, NewUser(name="First", email="first@example.org")),
        Person(4, NewUser(name="Last")),
    ]


def test_the_rest_of_a_broken_row_is_no_person(tmp_path: Path) -> None:
    """An address with a line break and no quotes: what follows the break has too few columns, and no e-mail."""
    rows = people_of(tmp_path, b"name;email;street;town\nAnn;a@b.c;Road 1\nYork;;\n")

    assert rows == [("Ann", "a@b.c"), "the row has 3 columns, the header 4"]


def test_a_quote_that_nobody_closes_spoils_its_own_line_alone(tmp_path: Path) -> None:
    """Also in a file so long that the rest would be no record."""
    rest = [(f"User {at}", f"user{at}@example.org") for at in range(5000)]

    rows = people_of(tmp_path, b'name,email\n"Ann,a@b.c\n' + text_of(rest).encode())

    assert rows == ["the row is not CSV: unexpected end of data", *rest]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "is empty"),
        (b"Ann,a@b.c\nname,email\nBob,b@b.c\n", "line 2 of .* names its columns, and e-mail addresses stand above it"),
        (b'"name,email"\n"Ann,a@b.c"\n', "has one column, 'name,email': each line is one value in quotes"),
        (b"name^email\nAnn^a@b.c\n", r"its delimiter seems to be '\^': write sep=\^ into a first line of its own"),
        (b"sep=;\nname,email\nAnn,a@b.c\n", "its delimiter seems to be ',': write sep=, into"),
        ("氏名,メール\n".encode("utf-16-be"), "looks like UTF-16 without its mark: try --encoding utf-16-be"),
        (b"name\nAnn\n", "no column that is known as email. Its columns are: 'name'"),
        (b"Ann,a@b.c\n", "must name its columns, such as name,email. Its columns are: 'Ann', 'a@b.c'"),
        ("name,email\n".encode("utf-16-le"), "looks like UTF-16 without its mark: try --encoding utf-16-le"),
        ("name,email\nAnn,".encode("utf-16") + b"a", "is not utf-16 after line 1: it is cut off or damaged"),
        (b"name,email\n" + b"x" * 1_000_000, "line 2 of .* has more than 1,000,000 characters"),
    ],
)
def test_a_file_that_is_no_list_of_people_says_the_cure(tmp_path: Path, content: bytes, text: str) -> None:
    """Nothing is read from it."""
    with pytest.raises(PeopleFileError, match=text):
        rows_of(tmp_path, content)


@pytest.mark.parametrize(("name", "reason"), [("nowhere.csv", "No such file"), (".", "Is a directory")])
def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, name: str, reason: str) -> None:
    """With its name."""
    with pytest.raises(PeopleFileError, match=f"cannot read .*: {reason}"), open_people(tmp_path / name):
        pass


def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    """It can be read only once, but is looked through before the first row."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(_EXCEL.encode("cp1252"),))
    writer.start()
    with open_people(pipe) as people:
        rows = list(people)
    writer.join()

    assert [row.user.name for row in rows if isinstance(row, Person)] == [ZOE[0], GROSS[0]]


def test_a_file_that_grows_is_refused(tmp_path: Path) -> None:
    """What was written after the file was looked at may be in another encoding, or the half of a row."""
    file = tmp_path / "people.csv"
    file.write_bytes(_EXCEL.encode())

    with open_people(file) as people:
        rows = iter(people)
        first = next(rows)
        with file.open("ab") as writer:
            writer.write(b"Ann;a@b.c;")
        with pytest.raises(PeopleFileError, match="was changed while it was read"):
            next(rows)

    assert isinstance(first, Person)


def test_rows_of_one_name_without_email_are_counted(tmp_path: Path) -> None:
    """Which of them a row is does not depend on its place in the file, nor on other columns."""
    rows = rows_of(tmp_path, b"name,email,x\nJo,,1\nAnn,,2\nJo,j@b.c,3\n Jo ,,4\n")

    assert [(row.user.name, row.number) for row in rows if isinstance(row, Person) and row.user.email is None] == [
        ("Jo", 1),
        ("Ann", 1),
        ("Jo", 2),
    ]


def test_the_sample_has_every_kind_of_bad_row() -> None:
    """The file that ships with the project shows what it is for."""
    with open_people(Path(str(files("worker") / "sample" / "people.csv")), encoding="utf-8") as people:
        rows = list(people)

    reasons = Counter(row.reason.split("on line")[0] for row in rows if isinstance(row, Refused))
    assert len(rows) == 10_000
    assert {
        "name: must have 1 to 200 characters",
        "email: is not an e-mail address such as jane@example.org",
        "email: the same as ",
        "email: must have at most 254 characters",
        "the row is not utf-8; what is shown is a guess",
        "the row has 1 column, the header 2",
    } <= set(reasons)
    assert sum(reasons.values()) == 148
