"""The command line: ``users-worker``, or ``python -m worker``."""

import signal
import sys
from collections.abc import Callable
from types import FrameType

import typer

from worker.commands.demo import demo
from worker.commands.dev import dev
from worker.commands.ends import ExitCode, explained
from worker.commands.enqueue import build_enqueue_app
from worker.commands.health import health
from worker.commands.import_people import import_
from worker.commands.migrate import migrate
from worker.commands.run import run
from worker.commands.status import status

_HELP = f"""A background worker: arq on the wire, users in PostgreSQL.

Servers come from DATABASE_URL and REDIS_URL; `dev` starts its own.

Exit codes: {", ".join(f"{code.value} {code.name.lower()}" for code in ExitCode)}.
"""


def build_app() -> typer.Typer:
    """Put the commands together."""
    app = typer.Typer(
        name="users-worker", help=_HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    commands: dict[str, Callable[..., None]] = {
        "run": run, "migrate": migrate, "status": status, "health": health, "import": import_, "dev": dev, "demo": demo
    }  # fmt: skip
    for name, command in commands.items():
        app.command(name)(command)
    app.add_typer(build_enqueue_app(), name="enqueue")
    return app


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line and exit with its code."""
    # A supervisor's SIGTERM ends `dev` and `demo` as Ctrl-C does; the worker itself replaces both handlers.
    signal.signal(signal.SIGTERM, _interrupt)
    with explained():
        build_app()()
    sys.exit(ExitCode.OK)


if __name__ == "__main__":
    main()
