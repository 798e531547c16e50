"""One person, one form: names and addresses over all of Unicode."""

import sys
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from jobs.fields import EmailAddress, UserName

_EMAIL: TypeAdapter[str] = TypeAdapter(EmailAddress)
_NAME: TypeAdapter[str] = TypeAdapter(UserName)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("jane@bücher.example", "jane@xn--bcher-kva.example"),
        ("jane@bücher.example", "JANE@BÜCHER.EXAMPLE"),
        ("jane@bücher.example", "jane@bu\u0308cher.example"),
        ("jane@faß.example", "jane@xn--fa-hia.example"),
        ("josé@example.org", "jose\u0301@example.org"),
        ("jane@example.org", "\uff4aane@example.org"),
        ("jane@example.org", "jane@\uff25XAMPLE.org"),
        ("jane@例え.jp", "jane@例え\u3002jp"),
        ("ilker@example.org", "İLKER@example.org"),
        ("γιωργος.παππας@example.org", "ΓΙΩΡΓΟΣ.ΠΑΠΠΑΣ@EXAMPLE.ORG"),
        ("γιωργος_1@example.org", "γιωργοσ_1@example.org"),
        ("jane@σοφοσ-α.gr", "JANE@ΣΟΦΟΣ-Α.GR"),  # noqa: RUF001
        ("jane@\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.com", "jane@xn--mgba3gch31f060k.com"),
        ("jane@\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.com", "jane@\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.com"),
    ],
)
def test_two_ways_to_write_one_address_are_one(one: str, other: str) -> None:
    """As people type, copy and export it."""
    assert _EMAIL.validate_python(other) == one


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("Jane <jane@example.org>", "is not an e-mail address"),
        ("ja\u200bne@example.org", "nobody can see"),
        ("jane@ex\u00adample.org", "nobody can see"),
        ("\ufeffjane@example.org", "nobody can see"),
        ("\u202ejane@example.org", "nobody can see"),
        ("ja\u3164ne@example.org", "nobody can see"),
        ("jane\ufe0f@example.org", "nobody can see"),
        ("ja\u034fne@example.org", "nobody can see"),
        ("jane\U000e0101@example.org", "nobody can see"),
        ("ja\u200cne@\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.com", "nobody can see"),
        ("jane@\ue000.example", "nobody can see"),
        ("'jane@example.org'", "is not an e-mail address"),
        ("jane@example.org/", "is not an e-mail address"),
        ("jane@xn--a.example", "no registry allows"),
        ("jane@-bücher.example", "no registry allows"),
    ],
)
def test_what_cannot_be_told_apart_has_no_place_in_an_address(address: str, why: str) -> None:
    """Nor a domain that nobody can own."""
    with pytest.raises(ValidationError, match=why):
        _EMAIL.validate_python(address)


def _accepted(adapter: TypeAdapter[str], value: str) -> str | None:
    try:
        return adapter.validate_python(value)
    except ValidationError:
        return None


_part = st.text(min_size=1, max_size=12)


@given(_part, _part, _part)
def test_the_form_of_a_form_is_itself(local: str, domain: str, top: str) -> None:
    """Whatever is accepted is normalised once; so it is the same in payload, table, file, HTTP and look-up."""
    normal = _accepted(_EMAIL, f"{local}@{domain}.{top}")

    assert normal is None or _accepted(_EMAIL, normal) == normal


def test_it_is_so_for_each_character() -> None:
    """In each part of an address, and in a name; a million, without hypothesis."""
    wrong = []
    for code in range(sys.maxunicode + 1):
        if not unicodedata.category(chr(code)).startswith("C"):
            for adapter, text in ((_EMAIL, f"a{chr(code)}@example.org"), (_NAME, f"a{chr(code)}")):
                normal = _accepted(adapter, text)
                if normal is not None and _accepted(adapter, normal) != normal:
                    wrong.append(text)
    assert wrong == []


@pytest.mark.parametrize("name", ["\u3164", "\u2800 \u200b", "\u115f\uffa0"])
def test_a_name_can_be_seen(name: str) -> None:
    """A blank that Unicode calls a letter is none."""
    with pytest.raises(ValidationError, match="no character that can be seen"):
        _NAME.validate_python(name)


@pytest.mark.parametrize("pasted", ["Jane\u200b", "\ufeffJane", "\u202aJane\u202c ", "\u200e \u202dJane\u2069"])
def test_what_programs_put_around_a_name_is_no_part_of_it(pasted: str) -> None:
    """A look-up finds the name however it was copied."""
    assert _NAME.validate_python(pasted) == "Jane"


@pytest.mark.parametrize(
    "name",
    ["മോഹന\u0d4d\u200d", "نامه\u200cای", "👨\u200d👩\u200d👧", "Jane \u2067\u05d0\u2069 Doe"],  # noqa: RUF001
)
def test_joiners_and_directions_are_part_of_a_name(name: str) -> None:
    """Words of some scripts end in them."""
    assert _NAME.validate_python(name) == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize(
    "name", ["Jane\u2028Doe", "Jane\u2029Doe", "Jane \u202eeoD", "Jane\u202dDoe", "Jane\nDoe", "\x1fJane"]
)
def test_a_name_has_one_line_and_turns_no_text_around(name: str) -> None:
    """Whoever reads a list of names sees each where it stands."""
    with pytest.raises(ValidationError, match="contains a control character"):
        _NAME.validate_python(name)


@pytest.mark.parametrize(("adapter", "end"), [(_NAME, ""), (_EMAIL, "@example.org"), (_EMAIL, "")])
def test_a_long_text_is_refused_at_once(adapter: TypeAdapter[str], end: str) -> None:
    """To put marks in a row into order took a minute for a message of the largest size, in which nothing else ran."""
    began = time.process_time()
    with pytest.raises(ValidationError, match="must have"):
        adapter.validate_python("\u0345\u0301" * 100_000 + end)

    assert time.process_time() - began < 1


@pytest.mark.parametrize(("adapter", "composed"), [(_NAME, "\u1f82" * 200), (_EMAIL, "\u1f82" * 64 + "@example.org")])
def test_length_is_that_of_the_normal_form(adapter: TypeAdapter[str], composed: str) -> None:
    """However many parts its characters have."""
    assert adapter.validate_python(unicodedata.normalize("NFD", composed)) == composed
