"""Guesses the encoding of a file of people, and says where a guess is in doubt. Knows no columns."""

import codecs
import html
import io
import re
import unicodedata
from collections.abc import Sequence
from email.header import decode_header, make_header
from functools import lru_cache
from typing import BinaryIO, NamedTuple

from people.rows import PeopleFileError

GUESSED = "cp1252"
"""What a file that has no mark and is not UTF-8 may be: the encoding of Excel on Western Windows. Includes latin-1."""

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before that of UTF-16, with which it begins
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HEAD = 2000
"""Bytes that show whether a file is UTF-16 without a mark."""

_BLOCK = 2**20
"""Bytes that are read at once."""

_RIVALS = ("utf-8", "cp1251", "cp1250", "cp1254", "mac_roman")
"""What else may be meant by a text that is plausible in cp1252. Not cp850, which has a letter, õ, for each ä."""

_ASIAN = ("cp932", "gb18030", "big5", "cp949")
"""Encodings of Windows in Japan, China, Taiwan and Korea."""

_RIVALS_OF_NONSENSE = ("utf-8", "cp1251", "cp1250", "cp1254", "cp850", "mac_roman", "iso8859_15", *_ASIAN)
"""What else may be meant by a text that is not."""

_WESTERN_RIVALS = ("utf-8", "mac_roman")
"""What else may be meant in a file whose columns have names in a Western language."""

_NOT_MEANT = {"mac_roman": "ƒﬁﬂıÿ"}
"""Letters that stand where cp1252 has frequent ones, and that names in this encoding do not have."""


def encoding_of(file: BinaryIO, *, declared: str | None, where: str) -> str:
    """Return the name of Python's codec for a file: as declared, by its mark, UTF-8 if all of it is, or the guess.

    Raises:
        PeopleFileError: the encoding is not known, or the file contradicts it.
    """
    head = file.read(_HEAD)
    file.seek(0)
    marked = _marked(head)
    if declared is not None:
        return _declared(declared, marked, where)
    if marked:
        return marked
    if order := unicode_of(head):
        raise PeopleFileError(f"{where} looks like UTF-16 without its mark: try --encoding {order}")
    return "utf-8" if _is_utf8(file) else GUESSED


def unicode_of(head: bytes) -> str | None:
    """Return the form of Unicode that a file has by its mark, or UTF-16 if its beginning makes sense as that alone."""
    if b"\0" not in head or _marked(head):
        return _marked(head)
    if head.isascii() and 3 * head.count(b"\0") < len(head):
        return None  # of ASCII in UTF-16, each second byte is zero
    return next((order for order in ("utf-16-le", "utf-16-be") if _is_utf16(head, order)), None)


def _marked(head: bytes) -> str | None:
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), None)


def _is_utf16(head: bytes, order: str) -> bool:
    text = codecs.getincrementaldecoder(order)("replace").decode(head)
    return not set(text) & {"\0", "\ufffd"} and any(sign in text for sign in ",;\t|\r\n")


def _declared(declared: str, marked: str | None, where: str) -> str:
    try:
        io.TextIOWrapper(io.BytesIO(), declared)  # refuses codecs that are not of text
        name = codecs.lookup(declared).name
    except (LookupError, UnicodeError, ValueError) as error:
        raise PeopleFileError(f"--encoding {declared}: not known; write utf-8, utf-16, cp1252 or the like") from error
    if marked and not name.startswith(marked):
        raise PeopleFileError(f"{where} begins with the mark of {marked}, and is not {name}: leave out --encoding")
    # With the mark, utf-16 knows its byte order; the others leave the mark to the reader.
    return marked or name


def _is_utf8(file: BinaryIO) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while block := file.read(_BLOCK):
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    finally:
        file.seek(0)
    return True


def errors_of(encoding: str) -> str:
    """Return how to treat bytes that are no text: keep them apart, where the encoding extends ASCII."""
    return "strict" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"


def is_text(value: str) -> bool:
    """Return whether all of the value could be decoded."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def readable(value: str, encoding: str) -> str:
    """Return the value as text, what could not be decoded in the likeliest other encoding."""
    if is_text(value):
        return value
    try:
        raw = value.encode(encoding, "surrogateescape")
    except UnicodeError:  # the file itself had lone surrogates
        return value.encode("utf-8", "replace").decode()
    return raw.decode(GUESSED if encoding == "utf-8" else "latin-1", "replace")


def meant_by(value: str) -> str | None:
    """Return what a value should be that was UTF-8, or a text of HTML or mail, and was read as something else."""
    if "&" in value and (text := html.unescape(value)) != value and _entity(value):
        return text
    if "=?" in value and _encoded_word(value):
        return str(make_header(decode_header(value)))
    if value.isascii():
        return None
    encodings = _MISREAD_AS[:1] if _is_name(value, "") else _MISREAD_AS
    meant = next(filter(None, (_read_anew(value, encoding) for encoding in encodings)), None)
    return meant and (meant_by(meant) or meant)


def _read_anew(value: str, encoding: str) -> str | None:
    try:
        text = value.encode(encoding).decode()
    except UnicodeError:
        return None
    return text if encoding == GUESSED or _is_name(text, "") or _is_asian(text) else None


_MISREAD_AS = (GUESSED, "mac_roman", "cp437", "cp850", "cp1250", "cp1251")
"""As what UTF-8 is read by mistake. What is a name in one of them, the first apart, is not taken for damaged."""

_entity = re.compile(r"&(#\d+|#x[0-9a-f]+|[a-z]+\d?);", re.IGNORECASE).search
_encoded_word = re.compile(r"=\?[\w-]+\?[bq]\?[^?\s]*\?=", re.IGNORECASE).search


class Doubt(NamedTuple):
    """All readings of one value, with their encodings; the first is the guess."""

    readings: Sequence[tuple[str, str]]


def doubt_about(value: str, *, is_western: bool) -> Doubt | None:
    """Return what else a value that was decoded as the guess may mean, ``None`` if the guess is the only good one."""
    if value.isascii():
        return None
    raw = value.encode(GUESSED, "surrogateescape")
    is_good = is_text(value) and _is_plausible(value)
    rivals = (_WESTERN_RIVALS if is_western else _RIVALS) if is_good else _RIVALS_OF_NONSENSE
    readings = [(rival, text) for rival in rivals if (text := _decoded(raw, rival)) not in {None, value}]
    good = {text: rival for rival, text in reversed(readings) if _is_good(rival, text)}
    if good or not is_good:
        others = [(rival, text) for text, rival in reversed(good.items())] or [("cp850", raw.decode("cp850"))]
        return Doubt([(GUESSED, raw.decode(GUESSED, "replace")), *others])
    return None


def _is_good(rival: str, text: str) -> bool:
    return rival == "utf-8" or _is_name(text, _NOT_MEANT.get(rival, "")) or (rival in _ASIAN and _is_asian(text))


def _decoded(raw: bytes, encoding: str) -> str | None:
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        return None


_words_of = re.compile(r"[^\x00-\x40\x5b-\x60\x7b-\x7f]+").findall
"""What has letters, ASCII or not, and no ASCII character besides."""

_CASED = {"Lu", "Ll"}
"""Unicode's general categories of capital and small letters."""

_JOINS = "\N{RIGHT SINGLE QUOTATION MARK}\N{EN DASH}"
"""As in O'Brien and in double names. Where no capital follows, í or ñ of Mac Roman may be meant, too."""


def _is_plausible(text: str) -> bool:
    """Return whether no word has a sign between its letters, letters of two scripts, or an odd capital."""
    return all(_is_word(word) for word in _words_of(text) if not word.isascii())


def _is_name(text: str | None, not_meant: str) -> bool:
    """Return whether each word is plausible and has only letters."""
    return text is not None and all(
        set(map(unicodedata.category, word)) <= _CASED and _is_word(word) and not set(word) & set(not_meant)
        for word in _words_of(text)
        if not word.isascii()
    )


def _is_asian(text: str) -> bool:
    """Return whether each word is in scripts without capitals: letters and their marks."""
    words = [word for word in _words_of(text.replace("\N{IDEOGRAPHIC SPACE}", " ")) if not word.isascii()]
    return bool(words) and all(set(map(unicodedata.category, word)) <= {"Lo", "Lm"} for word in words)


@lru_cache(maxsize=10_000)  # words repeat
def _is_word(word: str) -> bool:
    letters = [at for at, character in enumerate(word) if unicodedata.category(character) in _CASED]
    if not letters:
        return True
    signs = set(range(letters[0], letters[-1])).difference(letters)
    if any(word[at] not in _JOINS for at in signs):
        return False
    scripts = {unicodedata.name(word[at]).split()[0] for at in letters}
    return len(scripts) == 1 and not any(_is_odd_capital(word, at) for at in letters[1:])


def _is_odd_capital(word: str, at: int) -> bool:
    """Return whether this is a capital after a letter, one outside ASCII, in a word that has small letters."""
    pair = word[at - 1 : at + 1]
    return word[at].isupper() and pair.isalpha() and not pair.isascii() and not word.isupper()
