"""``arq-check``: says what will differ when an arq service runs in our worker."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from arqonce.arq.differences import find_differences
from arqonce.arq.service import load_service
from arqonce.usage import UsageError


def arq_check(
    settings: Annotated[str, typer.Argument(metavar="MODULE.CLASS", help="The settings class of the arq worker.")],
    *,
    pickle: Annotated[bool, typer.Option("--pickle", help="As for run: pickles are accepted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print an array of objects, for programs.")] = False,
) -> None:
    """Say what will differ when an arq service runs here, line by line, each with its cure.

    Imports the service, and connects to nothing. The exit code is 1 if jobs would fail, else 0.
    """
    try:
        found = find_differences(load_service(settings), accepts_pickle=pickle)
    except RuntimeError as error:  # what arq says of its functions
        raise UsageError(f"{settings}: {error}") from None
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], indent=2))
    else:
        for one in found:
            typer.echo(f"{one.level:<8} {one.where}: {one.what}. Cure: {one.cure}")
        typer.echo(f"{settings}: {_summary([one.level for one in found])}")
    raise typer.Exit(int(any(one.level == "error" for one in found)))


def _summary(levels: list[str]) -> str:
    if not levels:
        return "runs here as it is"
    counts = {level: levels.count(level) for level in ("error", "warning", "note")}
    return ", ".join(f"{count} {level}{'s' if count > 1 else ''}" for level, count in counts.items() if count)
