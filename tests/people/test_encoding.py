"""The encoding of a file of people: what is certain is read, and of what is in doubt nothing."""

from pathlib import Path

import pytest

from people.encoding import meant_by
from people.rows import PeopleFileError
from tests.people.files import people_of


def _file(names: str, encoding: str, *, header: str = "Name;E-Mail") -> bytes:
    rows = "".join(f"{name};\r\n" for name in names.split(","))
    return f"{header}\r\n{rows}".encode(encoding)


@pytest.mark.parametrize(
    "name", ["Jörg Müller", "Strauß-Äcker", "André", "GRÖSSE", "O\u2019Brien", "Müller\u2013Öl", "Zoë 5 €"]
)
def test_what_can_be_cp1252_alone_is_read_as_that(tmp_path: Path, name: str) -> None:
    """The usual encodings of the neighbours make other letters or nonsense of it, or the same."""
    assert people_of(tmp_path, _file(name, "cp1252")) == [(name, None)]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Prénom;Nom;Courriel", "Hélène;Lefèvre"),
        ("Nombre;Apellidos;Correo electrónico", "Begoña;Ibáñez"),
        ("Nome;Cognome;Posta elettronica", "Niccolò;Libertà"),
        ("Vorname;Nachname;E-Mail", "Søren;Håkansson"),
    ],
)
def test_western_columns_decide_between_western_and_eastern_letters(tmp_path: Path, header: str, name: str) -> None:
    """Windows writes cp1252 for people who name columns in these languages."""
    assert people_of(tmp_path, _file(name, "cp1252", header=header)) == [(name.replace(";", " "), None)]


@pytest.mark.parametrize(
    ("names", "encoding", "readings"),
    [
        ("Ann,Hélène", "cp1252", ["line 3", "'Hélène' in cp1252", "'Hélčne' in cp1250", "--encoding cp1252"]),
        ("Wałęsa", "cp1250", ["'Wa³êsa' in cp1252", "'Wałęsa' in cp1250", "--encoding cp1250"]),
        ("Иванов", "cp1251", ["'Èâàíîâ' in cp1252", "'Иванов' in cp1251"]),
        ("Y\u0131lmaz", "cp1254", ["'Yýlmaz' in cp1252"]),
        ("Groß", "mac_roman", ["'Gro§' in cp1252", "'Groß' in mac_roman"]),
        ("Martínez", "mac_roman", ["'Martínez' in"]),
        ("Möller", "mac_roman", ["'Mšller' in cp1252", "'Möller' in mac_roman"]),
        ("Müller", "cp850", ["'Müller' in cp850", "--encoding cp850"]),
        ("Jörg", "cp850", ["'J”rg' in cp1252", "'Jörg' in cp850"]),
        ("Müller", "mac_roman", ["'MŸller' in cp1252", "'Mźller' in cp1250", "'Müller' in mac_roman"]),
        ("花子", "shift_jis", ["in cp1252", "'花子' in cp932", "--encoding cp932"]),
        ("山田 花子", "cp932", ["'山田 花子' in cp932"]),
        ("王小明", "gb18030", ["'王小明' in gb18030"]),
        ("김철수", "cp949", ["'김철수' in cp949"]),
    ],
)
def test_a_file_in_doubt_is_refused_with_both_readings(
    tmp_path: Path, names: str, encoding: str, readings: list[str]
) -> None:
    """Nothing of it is read; the option that was meant, or one like it, is named."""
    with pytest.raises(PeopleFileError) as raised:
        people_of(tmp_path, _file(names, encoding))

    assert [reading for reading in readings if reading not in str(raised.value)] == []
    assert "Nothing was stored" in str(raised.value)


def test_utf8_with_a_row_of_another_encoding_is_in_doubt(tmp_path: Path) -> None:
    """Neither reading is right for all rows, so that a person must choose."""
    content = _file("Ann,Jörg", "utf-8") + "Groß;\r\n".encode("cp1252")

    with pytest.raises(PeopleFileError, match="'JÃ¶rg' in cp1252, and 'Jörg' in utf-8"):
        people_of(tmp_path, content)

    assert people_of(tmp_path, content, encoding="utf-8") == [
        ("Ann", None),
        ("Jörg", None),
        "the row is not utf-8; what is shown is a guess",
    ]


def test_letters_without_capitals_are_known_as_utf8(tmp_path: Path) -> None:
    """Valid UTF-8 is proof enough, in any script."""
    with pytest.raises(PeopleFileError, match="'काव्या' in utf-8"):
        people_of(tmp_path, _file("काव्या", "utf-8") + b"Gro\xdf;\n")


def test_a_column_in_doubt_is_refused(tmp_path: Path) -> None:
    """With the first names unread, only the last names would be stored."""
    with pytest.raises(PeopleFileError, match="'Prénom' in mac_roman"):
        people_of(tmp_path, _file("Ann;Lee", "mac_roman", header="Prénom;Nom;Courriel"))


def test_what_is_not_read_raises_no_doubt(tmp_path: Path) -> None:
    """A column of notes may have any letters."""
    assert people_of(tmp_path, "Name;E-Mail;Notiz\nAnn;a@b.c;à³ª\x81\n".encode("latin-1")) == [("Ann", "a@b.c")]


@pytest.mark.parametrize("encoding", ["cp1252", "cp1250", "mac_roman", "utf-8", "utf-16", "utf-16-le", "shift_jis"])
def test_the_option_decides(tmp_path: Path, encoding: str) -> None:
    """Whatever the file looks like."""
    name = "花子" if encoding == "shift_jis" else "Jörg"

    assert people_of(tmp_path, _file(name, encoding), encoding=encoding) == [(name, None)]


@pytest.mark.parametrize("encoding", ["nonsense", "rot13", "hex", "a\0b"])
def test_an_encoding_that_is_none_is_refused(tmp_path: Path, encoding: str) -> None:
    """Codecs that are not of text, too."""
    with pytest.raises(PeopleFileError, match="not known; write utf-8, utf-16, cp1252"):
        people_of(tmp_path, b"name,email\n", encoding=encoding)


def test_an_encoding_that_the_mark_contradicts_is_refused(tmp_path: Path) -> None:
    """All letters outside ASCII would be wrong."""
    with pytest.raises(PeopleFileError, match="begins with the mark of utf-8, and is not cp1252"):
        people_of(tmp_path, _file("Jörg", "utf-8-sig"), encoding="cp1252")


@pytest.mark.parametrize("name", ["Jörg", "André", "GRÖSSE", "Łukasz Wałęsa", "Иван Ильич", "Юлія", "花子", "Nuñez"])
def test_what_was_read_in_a_wrong_encoding_before_is_known(name: str) -> None:
    """Whatever it was read as, once or twice."""
    for encoding in ("cp1252", "mac_roman", "cp437", "cp850", "cp1250", "cp1251"):
        damaged = name.encode().decode(encoding, "ignore")
        if damaged.encode(encoding) == name.encode():
            assert meant_by(damaged) == name, encoding
    twice = "André".encode().decode("cp1252").encode().decode("cp1252")
    assert meant_by(twice) == "André"


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("J&ouml;rg &amp; Co", "Jörg & Co"),
        ("O&#39;Neil", "O'Neil"),
        ("=?UTF-8?Q?J=C3=B6rg?= Doe", "Jörg Doe"),
        ("=?utf-8?b?SsO2cmc=?=", "Jörg"),
        ("AT&T; Bell", None),
        ("Smith & Sons", None),
        ("a=?b?c", None),
        ("Лі", None),
        ("\u0420\u0456", None),  # of Cyrillic letters, and in cp1251 the bytes of another
        ("Ñandú", None),
        ("O\u2019Brien", None),
        ("Jörg", None),
    ],
)
def test_what_html_and_mail_write_is_known(value: str, meant: str | None) -> None:
    """It would be stored as it is; names that look a little like it are names."""
    assert meant_by(value) == meant
