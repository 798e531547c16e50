"""The types of the text fields: names in any script, and e-mail addresses, with their normal forms and limits."""

import re
import unicodedata
from typing import Annotated

import idna
from pydantic import AfterValidator, StringConstraints, WithJsonSchema

NAME_LENGTH = 200
"""Longest name, in characters. The column's check constraint has the same limit."""

EMAIL_LENGTH = 254
"""Longest e-mail address, in characters. The column's check constraint has the same limit."""

_NAME_RULE = f"must have 1 to {NAME_LENGTH} characters"
_EMAIL_RULE = f"must have at most {EMAIL_LENGTH} characters"

_MOST_PARTS = 4
"""Of so many characters at most one is composed. What is longer is too long in any form, and is refused before it is
normalised: that takes time which grows with the square of marks in a row."""

_CONTROL = r"\x00-\x1f\x7f-\x9f"
_SPECIAL = rf"""\s@"(),:;<>\[\]\\{_CONTROL}"""
_ADDRESS = rf"[^{_SPECIAL}]{{1,64}}@[^{_SPECIAL}.]+(?:\.[^{_SPECIAL}.]+)+"
_IN_NO_DOMAIN = frozenset("!#$%&'*+/=?^`{|}~")
"""Signs of local parts, such as a + or the quote of 'jane@example.org'."""

_is_address = re.compile(_ADDRESS).fullmatch
"""One @, a local part, a domain with a dot; no quoting or comments. Only sending a mail can verify an address."""


_INVISIBLE = frozenset({"Zs", "Zl", "Zp", "Cf"})
"""Unicode's general categories of spaces, and of characters that only change how others look."""

_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0").union(
    *(map(chr, selectors) for selectors in (range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0)))
)
"""Letters, marks and symbols by their category, and nothing to the eye: Unicode's property Default_Ignorable."""

_DOTTED = "i\u0307"
"""The lower case of the Turkish capital I with a dot: nobody sees its second dot."""

_SIGMA, _FINAL_SIGMA = "\u03c3", "\u03c2"
_at_the_end = re.compile(rf"{_SIGMA}(?![^\W\d_])")
"""Greek has two small letters for one capital, U+03A3: which one it is, its place in the word says."""

_JOINERS = "\u200c\u200d"
"""Invisible, and part of words of some scripts. IDNA says where a domain may have them."""

_SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_MARKS = (*range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065), *range(0x2066, 0x2070))
_AROUND = _SPACES + "\u00ad\u061c\u200b\ufeff" + "".join(map(chr, _MARKS))
"""Spaces, and what programs put around what is copied, and nobody sees. No joiners: words end in them."""

_IN_NO_NAME = re.compile("[\u2028\u2029\u202d\u202e]").search
"""Finds breaks of lines, and what turns the text around it."""

_IN_NO_ADDRESS = _INVISIBLE | {"Cc", "Cs", "Co", "Cn"}
"""Categories without a place in an address: nobody could see or type what tells it from another."""


def _can_be_seen(character: str) -> bool:
    return unicodedata.category(character) not in _INVISIBLE and character not in _BLANK


def _normal_name(value: str) -> str:
    """Normalize to NFC, without what was pasted around it, so that a name is found again; reject what no name has."""
    is_simple = value.isascii() and value.isprintable() and not value.isspace()  # most are, and need no look at each
    # Counted after normalization, too: the normal form can be longer than the input, and the database counts it.
    if len(value) > _MOST_PARTS * NAME_LENGTH:
        raise ValueError(_NAME_RULE)
    name = value if is_simple else unicodedata.normalize("NFC", value).strip(_AROUND)
    if not is_simple and (_IN_NO_NAME(name) or any(unicodedata.category(one) in {"Cc", "Cs"} for one in name)):
        message = "contains a control character"
        raise ValueError(message)
    if value and not (is_simple or any(map(_can_be_seen, name))):
        message = "has no character that can be seen"
        raise ValueError(message)
    if not 1 <= len(name) <= NAME_LENGTH:
        raise ValueError(_NAME_RULE)
    return name


def _normal_email(value: str) -> str:
    """Give each address one form: lower case, compatible characters folded, the domain in the script of its owner.

    No provider in use distinguishes addresses by case. ``xn--bcher-kva.example`` is ``bücher.example`` (IDNA 2008).
    """
    is_simple = value.isascii() and value.isprintable()  # most are, and need no look at each character
    if len(value) > _MOST_PARTS * EMAIL_LENGTH:
        raise ValueError(_EMAIL_RULE)
    address = value.lower() if is_simple else _folded(value)
    local, at, domain = address.partition("@")
    if not is_simple and any(map(_is_in_no_address, local + domain.translate(dict.fromkeys(map(ord, _JOINERS))))):
        message = "has a character that nobody can see: type it anew instead of pasting it"
        raise ValueError(message)
    if _DOTTED in local:
        local = unicodedata.normalize("NFKC", local.replace(_DOTTED, "i"))
    if not is_simple:
        local = _at_the_end.sub(_FINAL_SIGMA, local.replace(_FINAL_SIGMA, _SIGMA))
    address = f"{local}{at}{_normal_domain(domain)}"
    if len(address) > EMAIL_LENGTH:
        raise ValueError(_EMAIL_RULE)
    if not _is_address(address) or not _IN_NO_DOMAIN.isdisjoint(address.partition("@")[2]):
        message = "is not an e-mail address such as jane@example.org"
        raise ValueError(message)
    return address


def _is_in_no_address(character: str) -> bool:
    # Of a space in the middle, as in Jane <jane@example.org>, more is wrong than that nobody sees it.
    return character != " " and (unicodedata.category(character) in _IN_NO_ADDRESS or character in _BLANK)


def _folded(value: str) -> str:
    """Return lower case without compatibility forms, such as the wide letters of Japanese keyboards."""
    for _ in range(_ROUNDS):
        composed = unicodedata.normalize("NFKC", value).replace("\u03a3", _SIGMA)  # a domain has no final one
        folded = unicodedata.normalize("NFKC", composed.lower())
        if folded == value:
            break
        value = folded
    return value


_ROUNDS = 4
"""Folding is done when it changes nothing: for all of Unicode after two rounds."""


def _normal_domain(domain: str) -> str:
    if domain.isascii() and "xn--" not in domain:
        return domain
    try:
        return idna.decode(idna.encode(domain, uts46=True, std3_rules=True))
    except (idna.IDNAError, UnicodeError):
        message = "has a domain that no registry allows"
        raise ValueError(message) from None


_TRIMMED = "Outer white space does not count, and is removed."
_NAME_SCHEMA = {
    "type": "string",
    "minLength": 1,
    "maxLength": NAME_LENGTH,
    "pattern": rf"^\s*[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*\s*$",
    "description": f"A person's name, in any script. {_TRIMMED}",
}
_EMAIL_SCHEMA = {
    "type": "string",
    "minLength": 5,
    "maxLength": EMAIL_LENGTH,
    "pattern": rf"^\s*{_ADDRESS}\s*$",  # "format": "email" allows only ASCII
    "description": f"An e-mail address, in any script; kept in lower case, its domain in Unicode. {_TRIMMED}",
}
"""The rules for other programs, as far as JSON Schema can express them."""

UserName = Annotated[
    str, StringConstraints(strip_whitespace=True), AfterValidator(_normal_name), WithJsonSchema(_NAME_SCHEMA)
]
"""A person's name: 1 to 200 characters of any script, outer white space removed, composed (NFC)."""

EmailAddress = Annotated[
    str, StringConstraints(strip_whitespace=True), AfterValidator(_normal_email), WithJsonSchema(_EMAIL_SCHEMA)
]
"""An e-mail address: at most 254 characters, outer white space removed, in one form for each (``_normal_email``)."""
