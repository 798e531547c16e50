"""``new-job NAME``: writes the files of a new job into a checkout."""

import os
from pathlib import Path
from typing import Annotated

import typer

from arqonce.application import Application
from arqonce.commands.checkout import find_checkout, write_together
from arqonce.commands.job_files import NewJob
from arqonce.invocation import beside

_TABLE = "Give the job a table of this name: model, migration, and a handler that writes a row."


def new_job(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The job's name on the wire, such as rename_user.")],
    *,
    table: Annotated[str | None, typer.Option(help=_TABLE)] = None,
) -> None:
    """Write a new job: payload, handler, registry line, and a test that passes; with --table, also a table.

    Works in the checkout of an application that names it (``Application.checkout``), and writes all files or none.
    Without a checkout, keep jobs in a project of your own, as examples/shop does.
    """
    application: Application = context.obj
    root = find_checkout(application)
    job = NewJob(root, application.registry, name, table)
    files = job.files()
    is_new = {file: not file.exists() for file in files}
    write_together(files)
    for file in files:
        typer.echo(f"{'wrote' if is_new[file] else 'added to'} {file.relative_to(root)}")
    for step in _next_steps(job, Path(os.path.relpath(job.test_file))):
        typer.echo(step)


def _next_steps(job: NewJob, test: Path) -> list[str]:
    steps = [
        f"its test passes: {beside('python')} -m pytest {test}",
        f"producers write: from jobs.payloads import {job.payload}",
        f"next: say in jobs/payloads.py what {job.payload} needs, and in jobs/{job.name}.py what it does",
    ]
    if job.table:
        steps += [
            "the table: change db/tables.py and its migration together; migrate applies it",
            f"rights: grant app_worker what the handler needs on {job.table} in deploy/postgres/grants.sql",
        ]
    return steps
