"""``schema``: writes the contract with producers, and compares it with an older version."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from arqonce.application import Application
from arqonce.contract.compatibility import ContractError, find_breaks
from arqonce.contract.document import build_document, build_schemas
from arqonce.process.exit_codes import ExitCode
from arqonce.usage import UsageError
from arqonce.versions import version_of


def schema(
    context: typer.Context,
    *,
    output: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="Write asyncapi.json into this folder, and a JSON Schema for each payload."),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Compare with the document that an older version wrote."),
    ] = None,
) -> None:
    """Print the contract with producers as an AsyncAPI 3.0 document, including the jobs of WORKER_REGISTRY.

    With --check, print instead the changes that break queued jobs, older producers or readers of results, and exit with
    1 if there are any.
    """
    application: Application = context.obj
    registry = application.registry
    document = build_document(registry, title=application.name, version=version_of(application.name) or "0")
    if check is not None:
        _check(_read(check), document)
    elif output is not None:
        _write(output, {"asyncapi.json": document} | build_schemas(registry))
    else:
        typer.echo(_text(document), nl=False)


def _check(old: dict[str, Any], new: dict[str, Any]) -> None:
    breaks = find_breaks(old, new)
    for one in breaks:
        typer.echo(str(one))
    release = old.get("info", {}).get("version")
    if breaks:
        count = "1 change breaks" if len(breaks) == 1 else f"{len(breaks)} changes break"
        typer.echo(f"{count} the contract of {release}")
        raise typer.Exit(ExitCode.FAILED)
    typer.echo(f"keeps the contract of {release}: {len(old['operations'])} jobs")


def _read(file: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))  # any JSON value: find_breaks checks it
    except (ValueError, OSError):
        raise ContractError(f"{file} cannot be read, or is not JSON") from None
    return document


def _write(folder: Path, documents: dict[str, dict[str, Any]]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, document in documents.items():
            (folder / name).write_text(_text(document), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--output: {folder} cannot be written to: {error.strerror}") from None
    typer.echo(f"{len(documents)} files in {folder}")


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
