"""Writes the table of metrics in docs/metrics.md from what the code can show. ``make fix`` runs it."""

import sys

from arqonce.metrics.families import FAMILIES
from tests.docs import tables

PAGE = tables.PAGES / "metrics.md"
BEGIN, END = "<!-- metrics: written by make fix -->", "<!-- end of metrics -->"


def render() -> str:
    """Return the table."""
    rows = [
        f"| `{family.name}` | {family.kind} | {', '.join(f'`{label}`' for label in family.labels)} | {family.help} |"
        for family in FAMILIES
    ]
    return "\n".join(["| metric | kind | labels | meaning |", "|---|---|---|---|", *rows])


def with_table(text: str) -> str:
    """Return the page's text with a fresh table in it."""
    return tables.with_table(text, render(), BEGIN, END)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit()
