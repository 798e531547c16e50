"""``users-worker import FILE``: imports people from a CSV file through the queue."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from arqonce import ExitCode, JobClient, QueueSettings, WorkerSettings
from people.columns import Mapping, read_mapping
from people.file import PeopleFile, open_people
from people.importing import import_people
from people.refused import RefusedRows, open_refused
from worker.commands.import_preview import describe, preview, print_preview
from worker.commands.import_progress import Advance, show_progress, show_reading

_PATIENCE = timedelta(minutes=1)
"""Longest wait for the result of one job; after it, no worker is assumed to run."""


@dataclass
class Summary:
    """The outcome of an import."""

    file: Path
    created: int = 0
    existing: int = 0
    refused: int = 0

    @property
    def refused_file(self) -> Path:
        """The file of refused rows, in the input's folder; of standard input and pipes, in the current one."""
        folder = self.file.parent.resolve()
        is_pipe = folder == Path("/dev") or folder.parts[1:2] == ("proc",)
        return Path("stdin.refused.csv") if is_pipe else self.file.with_name(f"{self.file.stem}.refused.csv")


@dataclass(frozen=True)
class Source:
    """A file of people, and what a person has decided about it."""

    file: Path
    encoding: str | None = None
    mappings: Sequence[Mapping] = ()

    def open(self, stack: ExitStack, *, quiet: bool) -> PeopleFile:
        """Open the file until the stack is closed. Reads all of it, to find out whether anything is in doubt."""
        with show_reading(self.file, quiet=quiet):
            return stack.enter_context(open_people(self.file, encoding=self.encoding, mappings=self.mappings))


def import_(
    file: Annotated[
        Path, typer.Argument(help="CSV, as Excel, Google Contacts and Outlook write it; - is standard input.")
    ],
    *,
    encoding: Annotated[
        str | None, typer.Option("--encoding", metavar="NAME", help="Such as cp1252; otherwise it is found out.")
    ] = None,
    mappings: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="TARGET=COLUMN", help="name=COLUMN or email=COLUMN; join columns with +."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be stored. Needs no server.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")] = False,
) -> None:
    """Store the people of a CSV file. Workers must be running.

    The first line names the columns, in any usual language; first and last names are joined. The delimiter and the
    encoding are found out; if the encoding is in doubt, nothing is stored, and the error says what to choose from.

    A person whose e-mail is stored already is left unchanged. Refused rows are written with their reasons into
    FILE.refused.csv beside the input: mend them there or in a copy of the whole file, and import that. Nobody is
    stored twice by it, and an interrupted import continues where it stopped.

    Without an e-mail, a person is recognised by the name: if a file has two rows with one name, both are stored; the
    same name in another file counts as already there, also if it is another person. A row that was stored and is given
    another name, or an e-mail, is stored as another person. This holds while receipts are kept (WORKER_KEEP_RECEIPTS);
    after WORKER_KEEP_RESULT, people of an earlier import may be counted as created.
    """
    file = Path("/dev/stdin") if file == Path("-") else file
    source = Source(file, encoding, [read_mapping(text) for text in mappings or ()])
    if dry_run:
        refused = _show_preview(source, as_json=as_json)
    else:
        summary = run_import(source, QueueSettings.load(), WorkerSettings.load().default_queue, quiet=as_json)
        refused = summary.refused
        typer.echo(json.dumps(_as_dict(summary), ensure_ascii=False)) if as_json else print_summary(summary)
    if refused:
        raise typer.Exit(ExitCode.FAILED)


def run_import(source: Source, settings: QueueSettings, queue: str, *, quiet: bool = False) -> Summary:
    """Import the file, show progress, and write the file of refused rows."""
    summary = Summary(source.file)
    with ExitStack() as stack:
        people = source.open(stack, quiet=quiet)
        if not quiet:
            typer.echo(f"reading {source.file.name}: {describe(people.layout)}", err=True)
        refused = RefusedRows(stack.enter_context(open_refused(summary.refused_file)), people.layout)
        advance = stack.enter_context(show_progress("import", people.layout.rows, quiet=quiet))
        client = JobClient(settings.url.get_secret_value(), password=settings.plain_password, queue=queue)
        asyncio.run(_import(client, people, refused, summary, advance))
    return summary


async def _import(
    client: JobClient, people: PeopleFile, refused: RefusedRows, summary: Summary, advance: Advance
) -> None:
    async with client:
        async for part in import_people(client, people, timeout=_PATIENCE):
            summary.created += part.created
            summary.existing += part.existing
            refused.add(part.refused)
            advance(part.rows)
    summary.refused = refused.count


def print_summary(summary: Summary) -> None:
    """Print the counts, and the path of the refused rows."""
    console = Console(soft_wrap=True, highlight=False)
    counts = f"created {summary.created:,}, already there {summary.existing:,}, refused {summary.refused:,}"
    console.print(counts, markup=False)
    if summary.refused:
        console.print(f"refused rows, to mend and import: {summary.refused_file}", markup=False)


def _show_preview(source: Source, *, as_json: bool) -> int:
    with ExitStack() as stack:
        people = source.open(stack, quiet=as_json)
        advance = stack.enter_context(show_progress("dry run", people.layout.rows, quiet=as_json))
        seen = preview(people, advance)
    typer.echo(json.dumps(seen.as_dict(), ensure_ascii=False)) if as_json else print_preview(seen)
    return seen.refused


def _as_dict(summary: Summary) -> dict[str, object]:
    return {
        "created": summary.created,
        "existing": summary.existing,
        "refused": summary.refused,
        "refused_file": str(summary.refused_file) if summary.refused else None,
    }
