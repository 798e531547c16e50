"""``users-worker demo``: runs a demonstration on real servers, in a separate directory."""

import asyncio
import shutil
from datetime import timedelta
from importlib.resources import files
from pathlib import Path

import typer

from arqonce import JobClient, QueueSettings, WorkerSettings
from arqonce.commands.dev import DataDirectory
from arqonce.commands.program import program
from arqonce.commands.sandbox import Sandbox, open_sandbox
from arqonce.invocation import as_typed
from jobs import FindUser, GetOrCreateUser
from worker.commands.demo_http import show_http
from worker.commands.import_people import Source, print_summary, run_import

_PATIENCE = timedelta(seconds=30)


def demo(context: typer.Context, *, data: DataDirectory = Path(".data/demo")) -> None:
    """Show it working, on servers of its own.

    Starts servers and a worker, stores and finds Jane, and Joan over HTTP, imports 10,000 people, and stops everything.
    Uses nothing outside one directory, which holds the servers, their data and a copy of the sample file.
    """
    with (
        open_sandbox(data.absolute(), context.obj) as sandbox,
        (sandbox.directory / "worker.log").open("wb") as log,
        sandbox.open_worker(log),
    ):
        asyncio.run(_store_and_find(sandbox.queue, WorkerSettings.load().default_queue))
        show_http(sandbox)
        _import_sample(sandbox)
    typer.echo("everything is stopped, and Jane and the others are kept for the next demo")
    typer.echo(f"next: {as_typed(program())} dev runs servers, a worker and the page of operators for you to try;")
    typer.echo("docs/tutorial.md makes a job of yours")


async def _store_and_find(settings: QueueSettings, queue: str) -> None:
    async with JobClient(settings.url.get_secret_value(), queue=queue) as client:
        jane = GetOrCreateUser(name="Jane", email="jane@example.org")
        await (await client.enqueue(jane)).result(timeout=_PATIENCE)
        found = await (await client.enqueue(FindUser(email=jane.email))).result(timeout=_PATIENCE)
    for user in found.users:
        typer.echo(f"User ID: {user.id}, Name: {user.name}")


def _import_sample(sandbox: Sandbox) -> None:
    sample = sandbox.directory / "people.csv"
    shutil.copyfile(str(files("worker") / "sample" / "people.csv"), sample)
    typer.echo(f"importing {sample.name}: 10,000 people, some of them bad on purpose")
    source = Source(sample, encoding="utf-8")  # some rows are not, on purpose
    print_summary(run_import(source, sandbox.queue, WorkerSettings.load().default_queue))
