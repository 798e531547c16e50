"""The command line: ``users-web``, or ``python -m web``. It has no options: settings come from the environment.

Imports hardly anything at first: a SIGTERM that comes while the rest is loaded must end the process too, and as PID 1
of a container Python ignores it until there is a handler.
"""

import signal
import sys
import time
from types import FrameType

_HELP = """usage: users-web

Serve users over HTTP until SIGTERM or Ctrl-C. Settings: DATABASE_*, REDIS_* and WEB_* (see the README).
Exit codes: 0 ok, 2 usage, 3 settings, 4 unavailable, 5 held (ended at its bound while something held on to it).
"""


def _hear_signals() -> None:
    """Let all signals that end a process end it as Ctrl-C does; SIGHUP not where nohup has it ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        number = getattr(signal, name, None)  # Windows has but two of them
        if number is not None and (name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN):
            signal.signal(number, _interrupt)


class _Told(KeyboardInterrupt):
    """An order to end.

    Were it KeyboardInterrupt itself, and left an exec() of a text, as in many imports, Python would die of SIGINT at
    its end, whoever has caught it since.
    """


_interrupted: list[float] = []


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    now = time.monotonic()
    if not _interrupted or now - _interrupted[-1] > _ONE_ORDER:  # shells and supervisors send several at once
        _interrupted.append(now)
        raise _Told


_ONE_ORDER = 0.5
"""Seconds in which several signals are one order to end."""


def main() -> None:
    """Run the service and exit with its code."""
    _hear_signals()
    if sys.argv[1:]:
        asks = sys.argv[1:] in (["--help"], ["-h"])
        (sys.stdout if asks else sys.stderr).write(_HELP)
        sys.exit(0 if asks else 2)
    try:
        _run()
    except KeyboardInterrupt:
        sys.exit(0)  # told to stop before it was ready to hear it


def _run() -> None:
    from arqonce import QueueUnavailableError, SettingsError  # noqa: PLC0415 - see the module's docstring
    from web.server import ListenError, run_service  # noqa: PLC0415
    from web.settings import Settings  # noqa: PLC0415

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
