"""Tables: with lines for people at a terminal, with tabs for programs."""

import sys
from collections.abc import Iterable, Sequence

import typer
from rich.console import Console
from rich.table import Column, Table


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print the rows below their titles; where standard output is no terminal, separated by tabs, each on a line."""
    if not sys.stdout.isatty():
        for row in (titles, *rows):
            typer.echo("\t".join(" ".join(cell.split()) for cell in row))
        return
    # Without markup and emoji, which would alter ids such as "[b]" and "user:key:1".
    Console(markup=False, emoji=False, highlight=False).print(build_table(titles, rows))


def build_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Build a table with lines. Print it without markup and emoji."""
    table = Table(*(Column(title, overflow="fold") for title in titles))  # a truncated id is useless
    for row in rows:
        table.add_row(*row)
    return table
