"""``users-worker import FILE``: imports people from a CSV file through the queue."""

import asyncio
import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from arqonce import ExitCode, JobClient, WorkerSettings
from arqonce.settings.worker import QueueSettings
from jobs.people_csv import PeopleFileError, Refused, read_people
from jobs.people_import import Imported, import_people

_PATIENCE = timedelta(minutes=1)
"""Longest wait for the result of one job; after it, no worker is assumed to run."""


_HEADER = "line,reason,row"
"""First line of the file of refused rows."""


@dataclass
class Summary:
    """The outcome of an import."""

    file: Path
    created: int = 0
    existing: int = 0
    refused: list[Refused] = field(default_factory=list)

    @property
    def refused_file(self) -> Path:
        """The file of refused rows, in the input's folder."""
        return self.file.with_name(f"{self.file.stem}.refused.csv")

    def add(self, part: Imported) -> None:
        """Add the counts of a part of the import."""
        self.created += part.created
        self.existing += part.existing
        self.refused += part.refused


def import_(
    file: Annotated[Path, typer.Argument(help="CSV in UTF-8 whose first line names the columns name and email.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")] = False,
) -> None:
    """Store the people of a CSV file. Workers must be running.

    A person whose e-mail is stored already is left unchanged. Refused rows are listed, with line number and reason, in
    FILE.refused.csv beside the input: correct them in a copy and import that. An interrupted import that is started
    again continues where it stopped. Importing the same file again stores nothing twice, including rows without an
    e-mail, while receipts are kept (WORKER_KEEP_RECEIPTS); after WORKER_KEEP_RESULT its summary is the first one's.
    """
    summary = run_import(file, QueueSettings.load(), WorkerSettings.load().queue, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(_as_dict(summary), ensure_ascii=False))
    else:
        print_summary(summary)
    if summary.refused:
        raise typer.Exit(ExitCode.FAILED)


def run_import(file: Path, settings: QueueSettings, queue: str, *, quiet: bool = False) -> Summary:
    """Import the file with a progress bar, and write the file of refused rows."""
    columns = (TextColumn("import"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with _open_refused(Summary(file).refused_file) as output:
        with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
            summary = asyncio.run(_import(file, settings, queue, progress))
        _write_refused(summary, output)
    return summary


def print_summary(summary: Summary) -> None:
    """Print the counts, and the path of the refused rows."""
    console = Console(soft_wrap=True, highlight=False)
    counts = f"created {summary.created:,}, already there {summary.existing:,}, refused {len(summary.refused):,}"
    console.print(counts, markup=False)
    if summary.refused:
        console.print(f"refused rows, with line and reason: {summary.refused_file}", markup=False)


async def _import(file: Path, settings: QueueSettings, queue: str, progress: Progress) -> Summary:
    summary = Summary(file)
    rows = read_people(file)
    bar = progress.add_task("import", total=_count_lines(file))
    async with JobClient(settings.url.get_secret_value(), password=settings.plain_password, queue=queue) as client:
        async for part in import_people(client, rows, timeout=_PATIENCE):
            summary.add(part)
            progress.advance(bar, part.lines)
    return summary


def _count_lines(file: Path) -> int | None:
    if not file.is_file():
        return None  # a pipe can be read only once; the reader reports a missing file
    with file.open("rb") as lines:
        return max(0, sum(1 for line in lines if line.strip()) - 1)


@contextmanager
def _open_refused(file: Path) -> Iterator[IO[str]]:
    """Open the file of refused rows, readable only by its owner: it holds personal data. Opened first, to fail early.

    Raises:
        PeopleFileError: it cannot be written, or another kind of file has its name.
    """
    try:
        if file.exists() and file.stat().st_size and not file.read_bytes().startswith(_HEADER.encode()):
            raise PeopleFileError(f"{file} is no list of refused rows, and would be overwritten: move it away")
        # Not through a symbolic link, which may lead to another user's file.
        output = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        text = f"cannot write the list of refused rows, {file}: {error.strerror}; import a copy from another folder"
        raise PeopleFileError(text) from error
    try:
        with os.fdopen(output, "w", encoding="utf-8", newline="") as opened:
            yield opened
            is_empty = not opened.tell()
    except BaseException:
        file.unlink()
        raise
    if is_empty:
        file.unlink()


def _write_refused(summary: Summary, output: IO[str]) -> None:
    if not summary.refused:
        return
    output.write(_HEADER + "\r\n")
    csv.writer(output).writerows(sorted((row.line, row.reason, row.row) for row in summary.refused))


def _as_dict(summary: Summary) -> dict[str, object]:
    return {
        "created": summary.created,
        "existing": summary.existing,
        "refused": len(summary.refused),
        "refused_file": str(summary.refused_file) if summary.refused else None,
    }
