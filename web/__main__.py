"""The command line: ``users-web``, or ``python -m web``. It has no options: settings come from the environment.

Loads the rest after signal handlers are installed, as ``arqonce.main`` does.
"""

import sys
from typing import NoReturn

from arqonce.interruptions import hear_signals
from arqonce.loading import begin_loading, end_loading, load_libraries
from arqonce.main import hold_standard_files
from arqonce.versions import version_of

_HELP = """usage: users-web [--help | --version]

Serve users over HTTP until SIGTERM or Ctrl-C. Settings: DATABASE_*, REDIS_*, WEB_*, OPS_* (docs/settings.md).
Exit codes: 0 ok, 2 usage, 3 settings, 4 unavailable, 5 held (ended at its time limit while something blocked its end).
"""


def main() -> None:
    """Run the service and exit with its code."""
    hold_standard_files()
    hear_signals(0)
    if sys.argv[1:]:
        _end_with_arguments(sys.argv[1:])
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(0)  # a signal during startup


def _end_with_arguments(arguments: list[str]) -> NoReturn:
    if arguments in (["--help"], ["-h"], ["help"]):
        sys.stdout.write(_HELP)
        sys.exit(0)
    if arguments in (["--version"], ["-V"]):
        names = ("users-worker", "arqonce", "aiohttp")
        sys.stdout.write(", ".join(f"{name} {number}" for name in names if (number := version_of(name))) + "\n")
        sys.exit(0)
    sys.stderr.write(
        f"users-web: takes no arguments, and got {arguments[0]!a}: settings are variables of the environment, such "
        "as WEB_PORT=8080; users-web --help names them\n"
    )
    sys.exit(2)


def _run() -> None:
    begin_loading()
    try:
        load_libraries()
        from arqonce import QueueUnavailableError, SettingsError  # noqa: PLC0415 - see the module's docstring
        from arqonce.operations.endpoint import ListenError  # noqa: PLC0415
        from web.server import run_service  # noqa: PLC0415
        from web.settings import Settings  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"arqonce", "web"}:
            raise
        sys.exit(f"users-web: the service needs {error.name}: pip install 'users-worker[web]'")

    end_loading()
    try:
        run_service(Settings.load())
    except SettingsError as error:
        _end(error, 3)
    except (ListenError, QueueUnavailableError) as error:
        _end(error, 4)


def _end(error: Exception, code: int) -> None:
    from arqonce.process.log_writer import say  # noqa: PLC0415 - as above

    say(f"users-web: {error}")
    sys.exit(code)


if __name__ == "__main__":
    main()
