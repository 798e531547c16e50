"""Recognizes statements that end a transaction, before they are sent. Knows no connection."""

import re
from functools import lru_cache

_WORDS = re.compile(r"\b(?:COMMIT|END|ABORT|PREPARE|ROLLBACK)\b", re.IGNORECASE)

_ENDING = re.compile(
    r"(?:^|;)[\s;]*(COMMIT|END|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!(?:\s+(?:WORK|TRANSACTION))?\s+TO\b))(?![\w$])",
    re.IGNORECASE,
)

_NO_CODE = re.compile(
    r"""
    /\*                                           # the begin of a comment, which may be nested
    | --[^\n\r]*                                  # a comment
    | (?<![\w$])[eE]'(?:[^'\\]|\\.|'')*'          # a string constant with escapes
    | '(?:[^']|'')*'                              # a string constant
    | "(?:[^"]|"")*"                              # a quoted identifier
    | (?<![\w$])\$(?P<tag>\w*)\$.*?\$(?P=tag)\$   # a dollar-quoted string constant, such as the body of a function
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
"""PostgreSQL's manual, "Lexical Structure"."""

_BODY = re.compile(r"\bCREATE\b[^;]*?\bBEGIN\s+ATOMIC\b", re.IGNORECASE)
"""The begin of an SQL-standard function body, in which CASE and END may be nested."""

_BODY_WORD = re.compile(r"\b(?:CASE|END)\b", re.IGNORECASE)

_COMMENT_SIGN = re.compile(r"/\*|\*/")


@lru_cache(maxsize=1000)
def ending_in(sql: str) -> str | None:
    """Return the command in ``sql``, one or several statements, that ends a transaction; ``None`` if there is none.

    PostgreSQL itself rejects such commands inside functions, procedures and DO blocks within a transaction block.
    """
    if _WORDS.search(sql) is None:
        return None
    found = _ENDING.search(_without_bodies(_code(sql)))
    return None if found is None else " ".join(found[1].upper().split())


def _code(sql: str) -> str:
    """Return the statements with each comment replaced by a blank and each literal by a word."""
    parts, at = [], 0
    while (found := _NO_CODE.search(sql, at)) is not None:
        parts += [sql[at : found.start()], " " if found[0].startswith(("/*", "--")) else " x "]
        at = _end_of_comment(sql, found.end()) if found[0] == "/*" else found.end()
    return "".join([*parts, sql[at:]])


def _end_of_comment(sql: str, at: int) -> int:
    depth = 1
    while depth and (sign := _COMMENT_SIGN.search(sql, at)) is not None:
        depth += 1 if sign[0] == "/*" else -1
        at = sign.end()
    return at if depth == 0 else len(sql)


def _without_bodies(code: str) -> str:
    parts, at = [], 0
    while (found := _BODY.search(code, at)) is not None:
        parts.append(code[at : found.start()])
        at = _end_of_body(code, found.end())
    return "".join([*parts, code[at:]])


def _end_of_body(code: str, at: int) -> int:
    depth = 1
    while depth and (word := _BODY_WORD.search(code, at)) is not None:
        depth += 1 if word[0].upper() == "CASE" else -1
        at = word.end()
    return at if depth == 0 else len(code)
