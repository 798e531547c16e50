"""Which columns make a person."""

from pathlib import Path

import pytest

from people.columns import WORDS
from people.rows import PeopleFileError
from tests.people.files import people_of

_NAMED = [
    (language, given, family, email)
    for language, roles in WORDS.items()
    if "first name" in roles
    for given in roles["first name"]
    for family in roles["last name"]
    for email in roles["email"]
]


@pytest.mark.parametrize(("language", "given", "family", "email"), _NAMED)
def test_first_and_last_name_are_joined_in_every_language(
    tmp_path: Path, language: str, given: str, family: str, email: str
) -> None:
    """In capitals and with other punctuation, too; first name first, wherever it stands, but in Japan."""
    content = f"{family.upper()};{email.replace('-', ' ')};Tel.;{given} [Required]\nDoe;a@b.c;1;Jane\n"

    name = "Doe Jane" if language == "Japanese" else "Jane Doe"
    assert people_of(tmp_path, content.encode()) == [(name, "a@b.c")], language


@pytest.mark.parametrize(
    "whole", [word for roles in WORDS.values() for word in roles.get("name", ())] + ["Nom", "Nombre"]
)
def test_a_whole_name_is_taken_as_it_is(tmp_path: Path, whole: str) -> None:
    """Also if first and last name have columns of their own; these count where it is empty."""
    content = f"First name,{whole},Surname,email\nJ.,Jane Doe,D.,a@b.c\nAnn,,Lee,\n"

    assert people_of(tmp_path, f"{whole},email\nJane Doe,a@b.c\n".encode()) == [("Jane Doe", "a@b.c")]
    assert people_of(tmp_path, content.encode()) == [("Jane Doe", "a@b.c"), ("Ann Lee", None)]


@pytest.mark.parametrize(
    "header", ["Name;Vorname;E-Mail", "Nom;Prénom;E-Mail", "Apellidos;Nombre;E-Mail", "Cognome;Nome;E-Mail"]
)
def test_name_beside_a_first_name_is_the_last_name(tmp_path: Path, header: str) -> None:
    """And Nombre and Nome beside a last name are the first name."""
    assert people_of(tmp_path, f"{header}\nDoe;Jane;a@b.c\n".encode()) == [("Jane Doe", "a@b.c")]


@pytest.mark.parametrize(
    "maps",
    [
        ["name=Kunde", "email=Kontakt (1+2)"],
        ["NAME=kunde", "email=kontakt 1 2"],
        ["name=Anrede+Kunde", "email=Kontakt (1+2)"],
    ],
)
def test_map_chooses_columns(tmp_path: Path, maps: list[str]) -> None:
    """Names are joined; the column that would be taken without it is not."""
    content = b"Anrede,Kunde,Notiz,Kontakt (1+2),email\n,Jane Doe,,a@b.c,not this\n"

    assert people_of(tmp_path, content, maps=maps) == [("Jane Doe", "a@b.c")]


def test_of_several_emails_the_first_that_is_there_counts(tmp_path: Path) -> None:
    """A person has one."""
    content = b"Name,Privat,Dienst\nJane,,a@b.c\nAnn,d@e.f,g@h.i\n"

    assert people_of(tmp_path, content, maps=["email=Privat+Dienst"]) == [("Jane", "a@b.c"), ("Ann", "d@e.f")]


@pytest.mark.parametrize(
    "header",
    [
        "Name,E-mail Address,E-mail 3 Address,E-mail 2 Address",
        "Name,E-mail 1 - Value,E-mail 3 - Value,E-mail 2 - Value",
        "Name,Email 1,Email 3,Email 2",
        "Name;E-Mail-Adresse;E-Mail 3: Adresse;E-Mail 2: Adresse".replace(";", ","),
    ],
)
def test_numbered_emails_are_taken_in_their_order(tmp_path: Path, header: str) -> None:
    """Whoever has only a second address is not stored without one."""
    content = f"{header}\nJane,a@b.c,c@b.c,b@b.c\nAnn,,f@b.c,e@b.c\nJo,,g@b.c,\n"

    assert people_of(tmp_path, content.encode()) == [("Jane", "a@b.c"), ("Ann", "e@b.c"), ("Jo", "g@b.c")]


@pytest.mark.parametrize(
    ("content", "maps", "text"),
    [
        ("Kunde;Kontakt\nJane;a@b.c\n", [], "'Kunde', 'Kontakt'. Say which: --map name=Kunde --map email=Kontakt"),
        ("Name;Neue Post\nJane;a@b.c\n", [], "Say which: --map 'email=Neue Post'"),
        ("Time,Email,Your name\n1,a@b.c,Jane\n", [], "Say which: --map 'name=Your name'"),
        ("name,mail,courriel\n", [], "several columns for email: 'mail' or 'courriel'. Choose one: --map email=mail"),
        ("name,name,email\n", [], "several columns for name: 'name' or 'name'"),
        ("Vorname,E-Mail\n", [], "only one half of the names. .* Use --map name=Vorname if 'Vorname' is all"),
        ("name,email\n", ["name=Kunde"], "no column 'Kunde', as --map says. Its columns are: 'name', 'email'"),
        ("name,email\n", ["phone=name"], "write --map name=COLUMN or --map email=COLUMN"),
        ("name,email\n", ["name"], "write --map name=COLUMN or --map email=COLUMN"),
        ("name,email\n", ["name=name", "name=email"], "--map has name twice: join columns with +"),
    ],
)
def test_columns_in_doubt_name_the_option_that_helps(tmp_path: Path, content: str, maps: list[str], text: str) -> None:
    """With what was found; nothing is read."""
    with pytest.raises(PeopleFileError) as raised:
        people_of(tmp_path, content.encode(), maps=maps)

    raised.match(text)


def test_the_exact_words_win(tmp_path: Path) -> None:
    """Over others that are recognised."""
    assert people_of(tmp_path, b"Full name;Name;E-Mail;Email\nx;Jane;x;a@b.c\n") == [("Jane", "a@b.c")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_that_names_columns(tmp_path: Path, delimiter: str) -> None:
    """Not the one that is most frequent."""
    content = f'"Notes, a;b\tc|d,;\t|"{delimiter}Name{delimiter}E-Mail\n,{delimiter}Jane{delimiter}a@b.c\n'

    expected = [("Jane", "a@b.c")] if delimiter != "," else ["the row has 4 columns, the header 3"]
    assert people_of(tmp_path, content.encode()) == expected
