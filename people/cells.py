"""Takes names and e-mail addresses out of the cells of a table, as people and programs write them. Knows no columns."""

import re

_NO_EMAIL = frozenset({"NULL", "\\N"})
"""What dumps of databases write for no value."""

_is_no_name = re.compile(r"NULL|\\N|#(N/A|NV|REF!|BEZUG!|VALUE!|WERT!|NAME\?|DIV/0!|NULL!|NUM!|ZAHL!)").fullmatch
"""What stands for no value: in dumps of databases, and where a formula of Excel has failed."""

_is_total = re.compile(
    r"(((grand|sub) ?)?totale?|sum|(gesamt)?summe|gesamt|somme|suma|totaal)[ :(\d.,)]*", re.IGNORECASE
).fullmatch
"""What stands in the last row, below the names."""

_is_simple = re.compile(r"[\w.+-]+@[\w.-]+").fullmatch

_excel_text = re.compile(r'="(.*)"', re.DOTALL).fullmatch
"""How programs keep Excel from taking a text for a number."""

_in_brackets = re.compile(r"([^<>]*)<\s*([^<>\s]+@[^<>\s]+?)\s*>.*", re.DOTALL).fullmatch
"""As in Jane Doe <jane@example.org>."""

_separator = re.compile(r"\s*(?::::|[;,\s])\s*")
"""Between addresses. Google Contacts writes :::."""


def text_of(cell: str) -> str:
    """Return what a cell says."""
    text = cell.strip()
    match = _excel_text(text) if text[:1] == "=" else None
    return match[1].strip() if match else text


def address_of(cell: str) -> str:
    """Return the first address in a cell, without the name beside it. What is no address stays as it is."""
    text = text_of(cell)
    if _is_simple(text):  # most are
        return text
    if text in _NO_EMAIL:
        return ""
    if (match := _in_brackets(text)) and not ("@" in match[1] and _separator.search(match[1].strip())):
        return _plain(match[2])
    parts = [part for part in _separator.split(text) if part]
    return _plain(parts[0]) if parts and all("@" in part for part in parts) else text


def no_person(name: str, email: str | None) -> str | None:
    """Return why a row is nobody's, though it has a name."""
    if any(map(_is_no_name, name.split(" "))):
        return "a mark for no value: type the name"
    return "a total, and no person" if email is None and _is_total(name) else None


def _plain(address: str) -> str:
    if address[:7].lower() != "mailto:":
        return address
    return address[7:].partition("?")[0]
