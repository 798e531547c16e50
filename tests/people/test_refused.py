"""The file of refused rows: whoever mends it loses nothing."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from people.file import open_people
from people.refused import RefusedRows, open_refused
from people.rows import PeopleFileError, Refused


def _refused_again(content: bytes, *, times: int = 1, encoding: str | None = None) -> tuple[bytes, list[list[str]]]:
    """Return the file of refused rows of a file, or of that file's, and the values of its rows."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "people.csv"
        file.write_bytes(content)
        for _ in range(times):
            target = file.with_name(f"{file.stem}.refused.csv")
            with open_people(file, encoding=encoding) as people, open_refused(target) as output:
                rows, encoding = RefusedRows(output, people.layout), None
                rows.add(row for row in people if isinstance(row, Refused))
            file = target
        with open_people(file) as people:
            return file.read_bytes(), [people.layout.own(row.values) for row in people if isinstance(row, Refused)]


def test_it_has_the_columns_and_the_delimiter_of_the_file() -> None:
    """The reason comes first, so that a row with too many or too few values keeps its columns."""
    content, _ = _refused_again("E-Mail;Ort;Name\r\n;Köln\r\nx;1;2;3\r\n".encode("utf-16"))

    assert content.decode() == (
        "\ufeffrefused because;E-Mail;Ort;Name\r\n"
        "line 2: the row has 2 columns, the header 3;;Köln\r\n"
        "line 3: the row has 4 columns, the header 3;x;1;2;3\r\n"
    )


def test_the_reason_of_an_earlier_import_is_replaced() -> None:
    """A row that is refused again has one reason."""
    content, _ = _refused_again(b"name,email\nZoe,x\n", times=3)

    assert content.decode().splitlines() == [
        "\ufeffrefused because,name,email",
        "line 2: email: is not an e-mail address such as jane@example.org,Zoe,x",
    ]


def test_what_is_not_text_is_shown_in_the_likeliest_encoding() -> None:
    """An escaped byte could be mended by nobody."""
    content, values = _refused_again(b"name,email\nGro\xdf,a@b.c\nZo\xc3\xab,x\n", encoding="utf-8")

    assert "utf-8; what is shown is a guess,Groß,a@b.c" in content.decode()
    assert values == [["Zoë", "x"]]


def test_what_acts_on_a_terminal_is_escaped() -> None:
    """Line breaks and tabs are not: they belong to addresses."""
    content, _ = _refused_again(b'name,email,address\n\x1b[31mZo\x9b\0,x,"a\tb\r\nc"\n', encoding="latin-1")

    assert r'\x1b[31mZo\x9b\x00,x,"a' + "\tb\r\nc" in content.decode()


def test_an_odd_delimiter_is_named_in_the_file() -> None:
    """Else it would not be found again."""
    content, values = _refused_again(b"sep=#\nname#email\nAnn#x\n")

    assert content.startswith(b"\xef\xbb\xbfsep=#\r\n")
    assert values == [["Ann", "x"]]


_VALUES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff"), max_size=6
) | st.sampled_from(['"', "\r\n", "\n", "\r", ",", ";", '",', "refused because"])


@given(table=st.lists(st.tuples(_VALUES, _VALUES), min_size=1))
def test_every_value_of_a_refused_row_is_read_from_it_again(table: list[tuple[str, str]]) -> None:
    """Nothing is lost between the file, its refused rows, and those of them that are refused again."""
    lines = ['"{}";"{}";x'.format(*(value.replace('"', '""') for value in row)) for row in table]

    _, values = _refused_again("\r\n".join(["note;name;email", *lines]).encode())

    assert values == [[*row, "x"] for row in table]


def test_what_is_no_ordinary_file_stays(tmp_path: Path) -> None:
    """An empty list is removed at the end, and a device of its name would be, too."""
    pipe = tmp_path / "people.refused.csv"
    os.mkfifo(pipe)

    with pytest.raises(PeopleFileError, match="is no list of refused rows"), open_refused(pipe):
        pass

    assert pipe.is_fifo()


def test_an_import_that_fails_leaves_an_earlier_list_alone(tmp_path: Path) -> None:
    """Somebody may have mended it."""
    file = tmp_path / "people.refused.csv"
    file.write_text("refused because,name,email\n,Ann,a@b.c\n")

    with suppress(InterruptedError), open_refused(file) as output:
        output.write("new")
        raise InterruptedError

    assert [one.read_text() for one in tmp_path.iterdir()] == ["refused because,name,email\n,Ann,a@b.c\n"]
