"""Tells CSV from other kinds of files that people have, by their first bytes. Knows no columns."""

import codecs
import re

from people.encoding import unicode_of
from people.rows import PeopleFileError

START = 2000
"""Bytes that are looked at: the names of the first files in an archive, and the first line of a text."""

_ONLY_CSV = "only CSV can be imported"
_UNPACK = "compressed: unpack it first"
_EXCEL = "a workbook of Excel: save it as CSV UTF-8 (File, Save as)"
_VCARDS = "of vCards: export the contacts as CSV"
_SQL = "SQL: export the table as CSV"

_KINDS = (
    (rb"PK\x03\x04.*(\[Content_Types\]\.xml|xl/|_rels/)", _EXCEL),  # .xlsx
    (rb"PK\x03\x04.*opendocument", "a document of LibreOffice or OpenOffice: save it as Text CSV (File, Save as)"),
    (rb"PK\x03\x04.*Index/", "a document of Apple Numbers: export it as CSV (File, Export to)"),
    (rb"PK[\x03\x05]", "an archive: unpack it first"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _EXCEL),  # .xls
    (rb"ID;P", "a workbook in the format SYLK: save it as CSV UTF-8 (File, Save as)"),
    (rb"\x1f\x8b|BZh\d1AY|\xfd7zXZ\0|\x28\xb5\x2f\xfd|7z\xbc\xaf\x27\x1c|Rar!\x1a", _UNPACK),
    (rb"BEGIN:VCARD", _VCARDS),
    (rb"dn: ", f"LDIF: {_ONLY_CSV}"),
    (rb"%PDF", f"a PDF: {_ONLY_CSV}"),
    (rb"\{\\rtf", f"rich text: {_ONLY_CSV}"),
    (rb"[\[{]\s*[\[{\"]", f"JSON: {_ONLY_CSV}"),
    (rb"<(!--|!doctype|html|head|meta|style|body|div|table)\b", f"a page of HTML: {_ONLY_CSV}"),
    (rb"<\?xml", f"XML: {_ONLY_CSV}"),
    (rb"(INSERT INTO|CREATE TABLE|/\*!|(-- *)?\s*-- (\w+ ){0,2}(database|SQL|MySQL) dump)\b", _SQL),
    (rb"SQLite format 3\0", "a database of SQLite: export the table as CSV"),
    (rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF", f"a picture or a sound: {_ONLY_CSV}"),
    (rb"\x7fELF|PAR1", f"no text: {_ONLY_CSV}"),
)
"""What a file is, by a pattern of its beginning without white space and byte order mark. The first that fits counts."""

_kinds = [(re.compile(pattern, re.IGNORECASE | re.DOTALL).match, what) for pattern, what in _KINDS]


def require_text(start: bytes, where: str) -> None:
    """Refuse an empty file, and other kinds of files that programs with people store.

    Raises:
        PeopleFileError: it cannot be CSV.
    """
    unicode = unicode_of(start)
    if unicode and not unicode.startswith("utf-8"):
        start = start.decode(unicode, "replace").encode("ascii", "replace").removeprefix(b"?")
    start = start.removeprefix(codecs.BOM_UTF8).lstrip()
    if not start:
        raise PeopleFileError(f"{where} is empty")
    if what := next((what for matches, what in _kinds if matches(start)), None):
        raise PeopleFileError(f"{where} is {what}")
    if b"\0" in re.split(rb"[\r\n]", start)[0]:
        raise PeopleFileError(f"{where} is no text, or it is damaged: its first line has a NUL byte")
