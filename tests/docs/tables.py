"""Puts a table that code can show into a page, between two comments that begin and end it."""

from pathlib import Path

PAGES = Path(__file__).parents[2] / "docs"


def with_table(text: str, table: str, begin: str, end: str) -> str:
    """Return the page's text with a fresh table in it."""
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n{table}\n{end}{after}"
