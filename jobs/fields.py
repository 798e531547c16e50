"""The types of the text fields: names in any script, and e-mail addresses, with their normal forms and limits."""

import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, StringConstraints, WithJsonSchema

NAME_LENGTH = 200
"""Longest name, in characters. The column's check constraint has the same limit."""

EMAIL_LENGTH = 254
"""Longest e-mail address, in characters. The column's check constraint has the same limit."""

_CONTROL = r"\x00-\x1f\x7f-\x9f"
_SPECIAL = rf"""\s@"(),:;<>\[\]\\{_CONTROL}"""
_ADDRESS = rf"[^{_SPECIAL}]{{1,64}}@[^{_SPECIAL}.]+(?:\.[^{_SPECIAL}.]+)+"
_is_address = re.compile(_ADDRESS).fullmatch
"""One @, a local part, a domain with a dot; no quoting or comments. Only sending a mail can verify an address."""


_INVISIBLE = {"Zs", "Zl", "Zp", "Cf"}
"""Unicode's general categories of spaces, and of characters that only change how others look."""


def _normal_name(value: str) -> str:
    """Normalize to NFC, so that a name typed on any keyboard is found again; reject characters that no name has."""
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        message = "contains a control character"
        raise ValueError(message)
    # Counted after normalization: the normal form can be longer than the input, and the database counts it.
    name = unicodedata.normalize("NFC", value)
    if not 1 <= len(name) <= NAME_LENGTH:
        message = f"must have 1 to {NAME_LENGTH} characters"
        raise ValueError(message)
    if all(unicodedata.category(character) in _INVISIBLE for character in name):
        message = "has no character that can be seen"
        raise ValueError(message)
    return name


def _normal_email(value: str) -> str:
    """Convert to lower case: no provider in use distinguishes addresses by case."""
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
    "pattern": rf"^\s*{_ADDRESS}\s*$",  # "format": "email" allows only ASCII
    "description": f"An e-mail address, in any script; kept in lower case. {_TRIMMED}",
}
"""The rules for other programs, as far as JSON Schema can express them."""

UserName = Annotated[
    str, StringConstraints(strip_whitespace=True), AfterValidator(_normal_name), WithJsonSchema(_NAME_SCHEMA)
]
"""A person's name: 1 to 200 characters of any script, outer white space removed, composed (NFC)."""

EmailAddress = Annotated[
    str, StringConstraints(strip_whitespace=True), AfterValidator(_normal_email), WithJsonSchema(_EMAIL_SCHEMA)
]
"""An e-mail address: at most 254 characters, outer white space removed, lower case, composed (NFC)."""
