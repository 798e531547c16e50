"""``console``: serves the page of operators, and makes tokens for it."""

import json
from contextlib import suppress
from typing import Annotated, Literal

import typer

from arqonce.application import Application
from arqonce.usage import UsageError

_EXTRA = frozenset({"aiohttp", "jinja2", "markupsafe"})


def build_console_app() -> typer.Typer:
    """Build the command with its subcommand."""
    app = typer.Typer(rich_markup_mode=None, invoke_without_command=True, help=_HELP)
    app.callback()(console)
    app.command("token")(token)
    return app


_HELP = """Serve the page of operators, until SIGTERM or Ctrl-C.

It shows what waits, runs and fails, and lets operators pause, resume and drain. Nobody gets in without a token, or a
proxy that names its user: see CONSOLE_TOKENS and CONSOLE_USERS. It asks the servers of DATABASE_URL and REDIS_URL, with
few connections; while these are away its pages say so.
"""


def console(context: typer.Context) -> None:  # noqa: D103 - typer shows _HELP
    if context.invoked_subcommand is not None:
        return
    with suppress(KeyboardInterrupt):  # a signal during startup, which loads much, is an orderly end
        _serve(context.obj)


def _serve(application: Application) -> None:
    try:
        from arqonce.console.server import run_console  # noqa: PLC0415 - needs the extra
        from arqonce.console.settings import Settings  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        raise UsageError(f"the console needs {error.name}: pip install 'arqonce[console]'") from None
    run_console(Settings.load(application.name), application)


def token(
    name: Annotated[str, typer.Argument(help="The name of the person, as the audit will have it.")],
    *,
    role: Annotated[
        Literal["reader", "operator"], typer.Option(help="Readers look; operators also pause, retry and discard.")
    ] = "reader",
    people: Annotated[bool, typer.Option("--people", help="May see people's data: payloads and results.")] = False,
) -> None:
    """Print a new token, and what CONSOLE_TOKENS must have for it: its hash and its rights.

    The token is shown once, and is nowhere kept. Whoever has it is that person. To replace it, replace its entry.
    """
    from arqonce.console.access import hash_of, new_token, require_name  # noqa: PLC0415 - see above

    try:
        require_name(name)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from None
    made = new_token()
    entry = {name: {"sha256": hash_of(made), "role": role, "people": people}}
    typer.echo(f"token for {name}, which is not shown again: {made}", err=True)
    typer.echo(json.dumps(entry))
