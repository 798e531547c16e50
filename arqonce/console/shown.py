"""Shows text that comes from outside: ids, names, errors. It is hostile until shown to be harmless.

Nothing that it contains may run, may change the order in which a reader sees other text, may be invisible, or may be
so long that the page cannot be read. So control characters, marks of direction and invisible characters are replaced
by their number, the rest is escaped, and the whole is isolated from the text around it.
"""

import re
import unicodedata

from markupsafe import Markup, escape

LONGEST = 300
"""Characters of a value that are shown, unless a page says another number."""

_MOST_MARKS = 4
"""Combining marks that may follow one another: more of them cover the lines above and below."""

_PLAIN = re.compile(r"[\x20-\x7e]*")

_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols without a form."""


def _is_odd(character: str, *, lines: bool) -> bool:
    if lines and character in "\n\t":
        return False
    category = unicodedata.category(character)
    return (
        category[0] == "C" or category in {"Zl", "Zp"} or (category == "Zs" and character != " ") or character in _BLANK
    )


def _parts(text: str, *, lines: bool) -> list[tuple[bool, str]]:
    """Return the text in parts that are odd or not."""
    parts: list[tuple[bool, str]] = []
    usual: list[str] = []
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.category(character) == "Mn" else 0
        if marks > _MOST_MARKS or _is_odd(character, lines=lines):
            parts += [(False, "".join(usual)), (True, f"U+{ord(character):04X}")]
            usual.clear()
        else:
            usual.append(character)
    return [*parts, (False, "".join(usual))]


def _cut(value: object, limit: int) -> tuple[str, str]:
    text = value if isinstance(value, str) else str(value)
    return (text, "") if len(text) <= limit else (text[:limit], f"… of {len(text):,} characters")


def shown(value: object, limit: int = LONGEST, *, lines: bool = False) -> Markup:
    """Return a value from outside as HTML. With ``lines``, line breaks and tabs stay as they are."""
    text, rest = _cut(value, limit)
    if _PLAIN.fullmatch(text):
        inner = escape(text)
    else:
        parts = (
            f'<span class="odd">{part}</span>' if is_odd else escape(part) for is_odd, part in _parts(text, lines=lines)
        )
        inner = Markup("".join(parts))  # noqa: S704 - a number, or escaped; Markup.format takes 40 µs for each
    more = Markup('<span class="cut">{}</span>').format(rest) if rest else Markup("")
    return Markup('<bdi class="shown">{}</bdi>{}').format(inner, more)


def plain(value: object, limit: int = LONGEST) -> str:
    """Return a value from outside as text for attributes and titles. The template escapes it."""
    text, rest = _cut(value, limit)
    if not _PLAIN.fullmatch(text):
        text = "".join(f"[{part}]" if is_odd else part for is_odd, part in _parts(text, lines=False))
    return text + rest
