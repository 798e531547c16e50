"""``users-worker import FILE --dry-run``: shows what an import would do. Needs no server and writes nothing."""

from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from people.file import PeopleFile
from people.layout import Layout
from people.rows import Person, Refused, printable
from worker.commands.import_progress import Advance

_SHOWN = 10
"""Rows that are shown, of those that would be stored and of those that would be refused."""


@dataclass
class Preview:
    """What an import would do with a file."""

    layout: Layout
    people: int = 0
    without_email: int = 0
    refused: int = 0
    first_people: list[Person] = field(default_factory=list)
    first_refused: list[Refused] = field(default_factory=list)

    def add(self, row: Person | Refused) -> None:
        """Count a row, and keep it if it is one of the first."""
        if isinstance(row, Refused):
            self.refused += 1
            self.first_refused += [row] if self.refused <= _SHOWN else []
        else:
            self.people += 1
            self.without_email += row.user.email is None
            self.first_people += [row] if self.people <= _SHOWN else []

    def as_dict(self) -> dict[str, object]:
        """Return it for scripts."""
        return {
            "encoding": self.layout.encoding,
            "delimiter": self.layout.delimiter,
            "would_store": self.people,
            "without_email": self.without_email,
            "refused": self.refused,
            "first_rows": [{"line": row.line} | row.user.model_dump() for row in self.first_people],
            "first_refused": [{"line": row.line, "reason": row.reason} for row in self.first_refused],
        }


def preview(people: PeopleFile, advance: Advance) -> Preview:
    """Read all rows."""
    seen = Preview(people.layout)
    for row in people:
        seen.add(row)
        advance(1)
    return seen


def print_preview(seen: Preview) -> None:
    """Print the first rows, the counts, and the first rows that would be refused."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    table = Table("line", "name", "email", box=None, pad_edge=False)
    for row in seen.first_people:
        table.add_row(str(row.line), Text(row.user.name), Text(row.user.email or ""))
    console.print(describe(seen.layout))
    console.print(table)
    console.print(
        f"nothing was stored; would store {seen.people:,} unless they are there already, "
        f"{seen.without_email:,} of them without an e-mail; would refuse {seen.refused:,}"
    )
    for refused in seen.first_refused:
        values = seen.layout.delimiter.join(seen.layout.own(refused.values))
        console.print(f"line {refused.line}: {refused.reason}: {printable(values)}")
    if seen.refused > _SHOWN:
        console.print(f"and {seen.refused - _SHOWN:,} more")


def describe(layout: Layout) -> str:
    """Say in one line how the file is read."""
    columns = f"columns named in line {layout.header_line}, " if layout.has_titles else ""
    return f"{layout.encoding}, delimiter {layout.delimiter!r}, {columns}{layout.columns.text(layout.header)}"
