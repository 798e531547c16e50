"""The two kinds of text that people give us: names in any script, and e-mail addresses. Normal forms and limits."""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, StringConstraints, WithJsonSchema

NAME_LENGTH = 200
"""Longest name, in characters; the column's check says the same."""

EMAIL_LENGTH = 254
"""Longest e-mail address, in characters; the column's check says the same."""

_CONTROL = r"\x00-\x1f\x7f-\x9f"
_SPECIAL = rf"""\s@"(),:;<>\[\]\\{_CONTROL}"""
_ADDRESS = rf"[^{_SPECIAL}]{{1,64}}@[^{_SPECIAL}.]+(?:\.[^{_SPECIAL}.]+)+"
_is_address = re.compile(_ADDRESS).fullmatch
"""One @, a local part, a domain with a dot; no quoting or comments. Whether mail arrives only a mail can tell."""


_INVISIBLE = {"Zs", "Zl", "Zp", "Cf"}
"""Spaces, and what only changes how other characters look (Unicode's general categories)."""


def _normal_name(value: str) -> str:
    """Compose (NFC), so that a name typed on any keyboard is found again; refuse what no name contains."""
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        message = "contains a control character"
        raise ValueError(message)
    # Counted last: the normal form can be longer than what was given, and the database counts it.
    name = unicodedata.normalize("NFC", value)
    if not 1 <= len(name) <= NAME_LENGTH:
        message = f"must have 1 to {NAME_LENGTH} characters"
        raise ValueError(message)
    if all(unicodedata.category(character) in _INVISIBLE for character in name):
        message = "has no character that can be seen"
        raise ValueError(message)
    return name


def _normal_email(value: str) -> str:
    """Lower-case all of it: no provider in use tells two people apart by case."""
    address = unicodedata.normalize("NFC", value).lower()
    if len(address) > EMAIL_LENGTH:
        message = f"must have at most {EMAIL_LENGTH} characters"
        raise ValueError(message)
    if not _is_address(address):
        message = "is not an e-mail address such as jane@example.org"
        raise ValueError(message)
    return address


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
    "pattern": rf"^\s*{_ADDRESS}\s*$",  # "format": "email" means ASCII
    "description": f"An e-mail address, in any script; kept in lower case. {_TRIMMED}",
}
"""What other programs are told of the rules: as much as JSON Schema can say."""

UserName = Annotated[
    str, StringConstraints(strip_whitespace=True), AfterValidator(_normal_name), WithJsonSchema(_NAME_SCHEMA)
]
"""A person's name: 1 to 200 characters of any script, outer white space removed, composed (NFC)."""

EmailAddress = Annotated[
    str, StringConstraints(strip_whitespace=True), AfterValidator(_normal_email), WithJsonSchema(_EMAIL_SCHEMA)
]
"""An e-mail address: at most 254 characters, outer white space removed, lower case, composed (NFC)."""
