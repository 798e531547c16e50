"""``users-worker import FILE``: people from a CSV file, through the queue."""

import asyncio
import csv
import json
import shutil
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from jobs.client import open_client
from jobs.people_csv import Refused, read_people
from jobs.people_import import Imported, import_people
from worker.commands.ends import ExitCode
from worker.settings import QueueSettings, WorkerSettings

_PATIENCE = timedelta(minutes=1)
"""How long to wait for the result of one job before we suppose that no worker runs."""


@dataclass
class Summary:
    """How an import ended."""

    file: Path
    created: int = 0
    existing: int = 0
    refused: list[Refused] = field(default_factory=list)

    @property
    def refused_file(self) -> Path:
        """Where the refused rows are listed: beside the input."""
        return self.file.with_name(f"{self.file.stem}.refused.csv")

    def add(self, part: Imported) -> None:
        """Count a part of the import."""
        self.created += part.created
        self.existing += part.existing
        self.refused += part.refused


def import_(
    file: Annotated[Path, typer.Argument(help="CSV in UTF-8 whose first line names the columns name and email.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")] = False,
) -> None:
    """Store the people of a CSV file. Workers must be running.

    A person whose e-mail is stored already stays as it is. Refused rows are listed, with line number and reason, in
    FILE.refused.csv beside the input; mend them in a copy and import that. An import that broke off goes on where it
    was when it is started again. Rows without an e-mail cannot be recognised: they are stored again when the same
    file is imported after results have expired (WORKER_KEEP_RESULT).
    """
    summary = run_import(file, QueueSettings.load(), WorkerSettings.load().queue, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(_as_dict(summary), ensure_ascii=False))
    else:
        print_summary(summary)
    if summary.refused:
        raise typer.Exit(ExitCode.FAILED)


def run_import(file: Path, settings: QueueSettings, queue: str, *, quiet: bool = False) -> Summary:
    """Import the file with a progress bar, and write the list of refused rows."""
    columns = (TextColumn("import"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        summary = asyncio.run(_import(file, settings, queue, progress))
    _write_refused(summary)
    return summary


def print_summary(summary: Summary) -> None:
    """Print the counts, and where the refused rows are."""
    console = Console(soft_wrap=True, highlight=False)
    counts = f"created {summary.created:,}, already there {summary.existing:,}, refused {len(summary.refused):,}"
    console.print(counts, markup=False)
    if summary.refused:
        console.print(f"refused rows, with line and reason: {summary.refused_file}", markup=False)


async def _import(file: Path, settings: QueueSettings, queue: str, progress: Progress) -> Summary:
    summary = Summary(file)
    rows = read_people(file)
    bar = progress.add_task("import", total=_count_lines(file))
    async with open_client(settings.url.get_secret_value(), password=settings.plain_password, queue=queue) as client:
        async for part in import_people(client, rows, timeout=_PATIENCE):
            summary.add(part)
            progress.advance(bar, part.lines)
    return summary


def _count_lines(file: Path) -> int:
    try:
        with file.open("rb") as lines:
            return max(0, sum(1 for line in lines if line.strip()) - 1)
    except OSError:
        return 0  # the reader says what is wrong with it


def _write_refused(summary: Summary) -> None:
    if not summary.refused:
        summary.refused_file.unlink(missing_ok=True)  # of an earlier import
        return
    with summary.refused_file.open("w", encoding="utf-8", newline="") as output:
        writer = csv.writer(output)
        writer.writerow(["line", "reason", "row"])
        writer.writerows(sorted((row.line, row.reason, row.row) for row in summary.refused))
    shutil.copymode(summary.file, summary.refused_file)  # it holds people's data, as the input does


def _as_dict(summary: Summary) -> dict[str, object]:
    return {
        "created": summary.created,
        "existing": summary.existing,
        "refused": len(summary.refused),
        "refused_file": str(summary.refused_file) if summary.refused else None,
    }
