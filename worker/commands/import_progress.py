"""Shows how far an import is: on a terminal in one line that is rewritten, elsewhere in a line now and then."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_PAUSE = timedelta(seconds=10)
"""Between two lines where the output is no terminal, such as the log of a cron job."""

Advance = Callable[[int], None]
"""Takes the number of rows that were done since the last call."""


@contextmanager
def show_reading(file: Path, *, quiet: bool) -> Iterator[None]:
    """Say on a terminal that the file is being read for the first time."""
    console = Console(stderr=True)
    with nullcontext() if quiet or not console.is_terminal else console.status(f"reading {file.name}"):
        yield


@contextmanager
def show_progress(what: str, total: int, *, quiet: bool) -> Iterator[Advance]:
    """Yield what to call with the number of rows done since the last call."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield _Lines(what, total, quiet=quiet).advance
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda rows: progress.advance(bar, rows)


class _Lines:
    def __init__(self, what: str, total: int, *, quiet: bool) -> None:
        self._what, self._total, self._quiet = what, total, quiet
        self._done, self._last = 0, time.monotonic()

    def advance(self, rows: int) -> None:
        self._done += rows
        if not self._quiet and time.monotonic() - self._last >= _PAUSE.total_seconds():
            self._last = time.monotonic()
            typer.echo(f"{self._what}: {self._done:,} of {self._total:,} rows", err=True)
