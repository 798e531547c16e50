"""Tables: with lines for people at a terminal, with tabs for programs, which do not load rich."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


_LEAST = 20
"""Width to which the last column may be folded, in characters: it has prose; the others, which may not, have names."""


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print the rows below their titles; where standard output is no terminal, separated by tabs, each on a line.

    On a terminal that is too narrow each row is a list of its cells: an id that is folded cannot be copied.
    """
    if not sys.stdout.isatty():
        for row in (titles, *rows):
            typer.echo("\t".join(" ".join(cell.split()) for cell in row))
        return
    console, rows = build_console(), [*rows]
    widths = _widths(titles, rows)
    if sum(widths[:-1]) + min(widths[-1], _LEAST) + 3 * len(widths) + 1 <= console.width:
        table = build_table(titles, rows)
        for column in table.columns[:-1]:
            column.no_wrap = True
        console.print(table)
        return
    width = max(map(len, titles))
    for row in rows:
        for title, cell in zip(titles, row, strict=True):
            console.print(f"{title:{width}}  {cell}", soft_wrap=True)
        console.print()


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


def _widths(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    from rich.cells import cell_len  # noqa: PLC0415 - as above

    return [max(map(cell_len, column)) for column in zip(titles, *rows, strict=True)]
