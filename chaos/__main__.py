"""``python -m chaos``: one run, its table, and an exit code that shows whether all promises were kept."""

import shutil
import signal
import tempfile
from datetime import timedelta
from pathlib import Path
from random import randrange
from types import FrameType
from typing import Annotated

import typer

from chaos import report
from chaos.plan import FAULTS, MARKER, Plan, Route
from chaos.storm import run

_DATA = Path(__file__).parent.parent / ".data" / "chaos"
"""Directory of a run's data and logs, which are removed if the run passes."""

_BREACH, _USAGE = 1, 2
"""Exit codes: a promise was not kept; the command line is wrong."""


def _read_faults(names: str) -> frozenset[str]:
    if names in {"all", "none"}:
        return frozenset(FAULTS if names == "all" else ())
    asked = {name.strip() for name in names.split(",") if name.strip()}
    if not asked:
        raise typer.BadParameter(f"name a fault, all or none: there are {', '.join(FAULTS)}")
    if unknown := sorted(asked - FAULTS.keys()):
        raise typer.BadParameter(f"there is no fault {', '.join(unknown)}: there are {', '.join(FAULTS)}")
    return frozenset(asked)


def main(  # noqa: PLR0913 - each is an option
    *,
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers; random by default.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Jobs to submit.")] = 5000,
    duration: Annotated[float, typer.Option(min=1, help="Seconds of faults.")] = 60,
    faults: Annotated[str, typer.Option(help=f"all, none, or some of {', '.join(FAULTS)}.")] = "all",
    drain: Annotated[float, typer.Option(min=1, help="Seconds in which all jobs must end afterwards.")] = 60,
    keep: Annotated[bool, typer.Option("--keep", help="Keep data and logs even if the run passes.")] = False,
    lease: Annotated[float, typer.Option(min=1, help="WORKER_LEASE in seconds.")] = 3,
    route: Annotated[list[Route] | None, typer.Option(help="Routes into the queue; all by default.")] = None,
    mutant: Annotated[str | None, typer.Option(help="Run this mutant of chaos.mutants as the worker.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as a row of Markdown.")] = False,
) -> None:
    """Run jobs under faults, check every promise, and exit with 1 if one was not kept."""
    plan = Plan(
        seed=randrange(1_000_000) if seed is None else seed,
        jobs=jobs,
        duration=timedelta(seconds=duration),
        faults=_read_faults(faults),
        drain=timedelta(seconds=drain),
        lease=timedelta(seconds=lease),
        routes=tuple(route or Route),
        mutant=mutant,
    )
    _DATA.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f"seed-{plan.seed}-", dir=_DATA))
    typer.echo(f"seed {plan.seed}: {jobs} jobs, {duration:g} s of faults; logs in {directory}", err=True)
    try:
        kept = _run(plan, directory, markdown=markdown)
    except BaseException:
        typer.echo(f"the run did not end: its logs are in {directory}", err=True)
        raise
    if not kept:
        typer.echo(f"the logs are in {directory}", err=True)
        raise typer.Exit(_BREACH)
    if not keep:
        shutil.rmtree(directory)


def _run(plan: Plan, directory: Path, *, markdown: bool) -> bool:
    outcome = run(plan, directory)
    columns = report.facts(plan, outcome.verdict, outcome.faults, outcome.drain.total_seconds())
    lines = [report.markdown(columns) if markdown else report.table(columns)]
    lines += [f"BREACH {breach}" for breach in outcome.verdict.breaches]
    full = (f"{breach.promise}: {example}\n" for breach in outcome.verdict.breaches for example in breach.examples)
    (directory / "breaches.txt").write_text("".join(full))
    text = "\n".join(lines)
    typer.echo(text)
    if MARKER.lower() in text.lower():
        typer.echo("BREACH data in the output", err=True)
        return False
    return not outcome.verdict.breaches


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
