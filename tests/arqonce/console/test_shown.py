"""Text from outside is shown so that it does nothing."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arqonce.console.shown import plain, shown

ODD = "<script>alert(1)</script>\0\u202eevil\u202c\u200b\u2066\ufeff\u00ad\ud800\x1b[31m\r\n\u2028\"'&"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("jane", "jane"),
        ("a b", "a b"),
        ("Zoë 東京 😀", "Zoë 東京 😀"),
        ("<b>", "&lt;b&gt;"),
        ("a\0b", 'a<span class="odd">U+0000</span>b'),
        ("\u202eab", '<span class="odd">U+202E</span>ab'),
        ("a\u200bb", 'a<span class="odd">U+200B</span>b'),
        ("a\u00a0b", 'a<span class="odd">U+00A0</span>b'),
        ("a\nb", 'a<span class="odd">U+000A</span>b'),
        ("e\u0301", "e\u0301"),
    ],
)
def test_what_is_shown(value: str, expected: str) -> None:
    """Letters of all scripts are; what is invisible, or changes what is around it, becomes its number."""
    assert shown(value) == f'<bdi class="shown">{expected}</bdi>'


def test_lines_stay_where_they_may() -> None:
    """An error's text has lines."""
    assert shown("a\n\tb\r", lines=True) == '<bdi class="shown">a\n\tb<span class="odd">U+000D</span></bdi>'


def test_a_megabyte_is_cut() -> None:
    """Of a long value the beginning is shown, and how long it is."""
    text = shown("x" * 1_000_000, 50)

    assert len(text) < 200
    assert "of 1,000,000 characters" in text


def test_marks_do_not_pile_up() -> None:
    """A hundred accents on one letter would cover the page."""
    assert shown("a" + "\u0301" * 100).count("\u0301") == 4


@given(st.text(alphabet=st.characters(), max_size=50))
def test_nothing_invisible_is_left(value: str) -> None:
    """Neither in HTML nor in plain text is there a character that is not seen."""
    for text in (shown(value), plain(value)):
        assert not [one for one in text if unicodedata.category(one) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}]
        text.encode()
    assert "<" not in shown(value).removeprefix('<bdi class="shown">').replace('<span class="odd">', "").replace(
        "</span>", ""
    ).removesuffix("</bdi>")
