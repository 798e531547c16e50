"""Tables: with lines for people at a terminal, with tabs for programs, which do not load rich."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print the rows below their titles; where standard output is no terminal, separated by tabs, each on a line."""
    if not sys.stdout.isatty():
        for row in (titles, *rows):
            typer.echo("\t".join(" ".join(cell.split()) for cell in row))
        return
    build_console().print(build_table(titles, rows))


def build_console() -> "Console":
    """Build a console without markup and emoji, which would alter ids such as ``[b]`` and ``user:key:1``."""
    from rich.console import Console  # noqa: PLC0415 - see the module's docstring

    return Console(markup=False, emoji=False, highlight=False)


def build_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> "Table":
    """Build a table with lines, to be printed on a console of ``build_console``."""
    from rich.table import Column, Table  # noqa: PLC0415 - as above

    table = Table(*(Column(title, overflow="fold") for title in titles))  # a truncated id is useless
    for row in rows:
        table.add_row(*row)
    return table
