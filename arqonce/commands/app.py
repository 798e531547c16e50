"""Builds the command line from the library's commands and the application's own."""

import codecs
import io
import os
import pkgutil
import platform
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from arqonce.application import Application
from arqonce.commands.listed import COMMANDS, GROUPS, Command
from arqonce.commands.program import PROGRAM
from arqonce.loading import end_loading
from arqonce.process.exit_codes import ExitCode, explained
from arqonce.registries import NAMED_BY
from arqonce.usage import UsageError
from arqonce.versions import version_of

_HELP = f"""{{description}}

The servers are those of DATABASE_URL and REDIS_URL; `dev` starts its own. WORKER_REGISTRY adds the jobs of other
projects, as does --registry module:NAME, which any command accepts.

Exit codes: {", ".join(f"{code.value} {code.name.lower()}" for code in ExitCode)}.
"""


def run_app(name: str) -> None:
    """Run the command of the application ``module:NAME``, and exit with its code."""
    _escape_unwritable()
    with explained(name.partition(".")[0]):
        run_application(pkgutil.resolve_name(name))


def _escape_unwritable() -> None:
    r"""Write what standard output has no bytes for as ``\u1234``, as JSON has it: names may have any characters."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.encoding.lower() != "utf-8":
        codecs.register_error("arqonce", _escaped)
        sys.stdout.reconfigure(errors="arqonce")


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)), error.end


def run_application(application: Application) -> None:
    """Run the command of the process's arguments, and exit with its code."""
    PROGRAM.set(application.name)
    with explained(application.name):
        _set_registry(sys.argv)
        if sys.argv[1:2] == ["help"]:
            sys.argv[1:] = [*sys.argv[2:], "--help"]
        application = _with_jobs(application)
        app = build_app(application, _called(sys.argv[1:]))
        end_loading()
        app(obj=application)


def _called(arguments: list[str]) -> str | None:
    """Return the name of the command in the arguments; ``None`` if there is none."""
    return next((argument for argument in arguments if not argument.startswith("-")), None)


def build_app(application: Application, called: str | None) -> typer.Typer:
    """Build the command line of one call: imports the command of that name, and lists the others."""
    app = typer.Typer(
        name=application.name,
        help=_HELP.format(description=application.description),
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # its help breaks sentences where the source does
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    app.callback()(_build_options(application))
    for name, command in (COMMANDS | dict(application.commands) | GROUPS).items():
        if not isinstance(command, Command):
            app.command(name)(command)
        elif name != called:
            is_of_no_use = name == "new-job" and application.checkout is None
            app.command(name, help=command.summary, hidden=is_of_no_use)(_list_only)
        elif command is GROUPS.get(name):
            app.add_typer(_build_group(command, application), name=name)
        else:
            app.command(name)(pkgutil.resolve_name(command.home))
    return app


def _list_only() -> None:
    """Stand for a command that is not called."""


def _build_group(group: Command, application: Application) -> typer.Typer:
    build = pkgutil.resolve_name(group.home)
    built: typer.Typer = build(application.registry) if group is GROUPS["enqueue"] else build()
    if not group.has_own_help:
        built.info.help = group.summary
    return built


def _build_options(application: Application) -> Callable[..., None]:
    def show_version(value: bool) -> None:  # noqa: FBT001 - typer's signature
        if value:
            typer.echo(versions(application.name))
            raise typer.Exit

    def options(
        *,
        _version: Annotated[
            bool, typer.Option("--version", "-V", callback=show_version, is_eager=True, help="Show versions, and end.")
        ] = False,
    ) -> None:
        pass

    options.__doc__ = _HELP.format(description=application.description)
    return options


def versions(name: str) -> str:
    """Return the versions of the application, of the library, and of what they stand on."""
    packages = dict.fromkeys([name, "arqonce", "arq", "redis", "SQLAlchemy", "asyncpg", "pydantic"])
    found = [f"{package} {number}" for package in packages if (number := version_of(package)) is not None]
    return ", ".join([*found, f"Python {platform.python_version()}"])


def _set_registry(arguments: list[str]) -> None:
    """Accept ``--registry`` anywhere in the arguments. Its values become the setting, also for child processes.

    Raises:
        UsageError: the option has no value.
    """
    named, rest = [], iter(arguments[:])
    arguments.clear()
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option != "--registry":
            arguments.append(argument)
        elif (name := value if equals else next(rest, None)) is None:
            raise UsageError("--registry needs a value: module:NAME, such as shop.jobs:REGISTRY")
        else:
            named.append(name)
    if named:
        os.environ["WORKER_REGISTRY"] = ",".join(named)
        NAMED_BY.set("--registry")


_NEED_NO_JOBS = frozenset(
    {"status", "health", "dead", "schedules", "queue", "workers", "audit", "new-job", "arq-check"}
)
"""Commands that do not need the jobs of WORKER_REGISTRY. Those that only show help do not need them either."""


def _with_jobs(application: Application) -> Application:
    asks_for_help = any(argument in {"--help", "-h"} for argument in sys.argv) and "enqueue" not in sys.argv
    has_own = any(argument.partition("=")[0] == "--settings" for argument in sys.argv)  # an arq service's
    if not sys.argv[1:] or sys.argv[1] in _NEED_NO_JOBS or asks_for_help:
        return application
    loaded = application.load()
    if not has_own and not loaded.registry.names and sys.argv[1] in {"run", "enqueue", "dev"}:
        if named := loaded.registry.setting:
            raise UsageError(f"{named} has no jobs yet: add one, as in Registry(JobSpec(Welcome, welcome))")
        raise UsageError(
            "there are no jobs to run: name a registry, --registry module:NAME or WORKER_REGISTRY; or an arq service, "
            "run --settings module.WorkerSettings"
        )
    return loaded
