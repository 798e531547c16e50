"""What is in a cell."""

import pytest

from people.cells import address_of, no_person, text_of


@pytest.mark.parametrize(
    ("cell", "address"),
    [
        (" a@b.c ", "a@b.c"),
        ("Jane Doe <a@b.c>", "a@b.c"),
        ('"Doe, Jane" <a@b.c>', "a@b.c"),
        ("a@b.c <mailto:a@b.c>", "a@b.c"),
        ("<a@b.c>", "a@b.c"),
        ("Jane <a@b.c>, Bob <d@e.f>", "a@b.c"),
        ("MailTo:a@b.c?subject=Hello", "a@b.c"),
        ('="a@b.c"', "a@b.c"),
        ("a@b.c;", "a@b.c"),
        ("a@b.c, d@e.f", "a@b.c"),
        ("a@b.c\r\nd@e.f", "a@b.c"),
        ("a@b.c ::: d@e.f", "a@b.c"),
        ("NULL", ""),
        ("\\N", ""),
        (";", ";"),
        ("none", "none"),
        ("a@b.c (home)", "a@b.c (home)"),
        ("a@b.c, Bob <d@e.f>", "a@b.c, Bob <d@e.f>"),
        ("jane doe@b.c", "jane doe@b.c"),
    ],
)
def test_the_first_address_of_a_cell_is_taken(cell: str, address: str) -> None:
    """What is none, or has more than addresses, stays as it is, and is refused."""
    assert address_of(cell) == address


@pytest.mark.parametrize(("cell", "text"), [('="Jane"', "Jane"), ('= "x"', '= "x"'), ('=""', ""), (" Jo ", "Jo")])
def test_a_text_that_excel_is_kept_from_changing_is_read(cell: str, text: str) -> None:
    """Exports write it so for numbers."""
    assert text_of(cell) == text


@pytest.mark.parametrize(
    ("name", "email", "is_nobody"),
    [
        ("NULL", "a@b.c", True),
        ("Jane NULL", "a@b.c", True),
        ("\\N", None, True),
        ("#N/A", "a@b.c", True),
        ("#NAME?", "a@b.c", True),
        ("Total", None, True),
        ("Gesamt: 17", None, True),
        ("Grand total (2)", None, True),
        ("Jennifer Null", None, False),
        ("Total", "a@b.c", False),
        ("Totalia Summer", None, False),
        ("", None, False),
    ],
)
def test_what_programs_write_below_or_instead_of_names_is_nobody(
    name: str, email: str | None, *, is_nobody: bool
) -> None:
    """It would be stored as a person."""
    assert bool(no_person(name, email)) is is_nobody
