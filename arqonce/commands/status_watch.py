"""``status --watch``: shows the status again and again: in one place, where the terminal can do that."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from arqonce.commands.status_view import complaints_of, json_of, lines_of, print_status, table_of
from arqonce.commands.table import build_console, build_table
from arqonce.failures import QueueUnavailableError
from arqonce.overview.status import StatusReader, open_status
from arqonce.settings.worker import QueueSettings, WorkerSettings

_WATCH_EVERY = timedelta(seconds=2)


async def watch_status(*, as_json: bool) -> None:
    """Show it until cancelled; an outage is shown, too."""
    async with open_status(QueueSettings.load(), WorkerSettings.load().queue.names) as reader:
        if as_json:
            while True:
                typer.echo(json.dumps(await _json_or_trouble(reader)))
                await asyncio.sleep(_WATCH_EVERY.total_seconds())
        console = build_console()
        if not console.is_terminal or console.is_dumb_terminal:  # rich shows nothing there until the end
            while True:
                await _print(reader)
                await asyncio.sleep(_WATCH_EVERY.total_seconds())
        with Live(console=console, auto_refresh=False, screen=True) as live:
            while True:
                live.update(await _shown(reader), refresh=True)
                await asyncio.sleep(_WATCH_EVERY.total_seconds())


async def _json_or_trouble(reader: StatusReader) -> dict[str, object]:
    try:
        return json_of(await reader.read())
    except QueueUnavailableError as error:
        return {"redis": str(error)}


async def _print(reader: StatusReader) -> None:
    typer.echo(_now())
    try:
        print_status(await reader.read())
    except QueueUnavailableError as error:
        typer.echo(str(error), err=True)
    typer.echo()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


async def _shown(reader: StatusReader) -> Group:
    now = _now()
    try:
        found = await reader.read()
    except QueueUnavailableError as error:
        return Group(Text(now), Text(str(error)))
    lines = [Text(f"{name}: {value}") for name, value in lines_of(found)]
    return Group(Text(now), build_table(*table_of(found)), *lines, *map(Text, complaints_of(found)))
