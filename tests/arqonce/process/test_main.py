"""The beginning of a process, where signals may come at any moment."""

import subprocess
import sys

import pytest

from arqonce import main as beginning
from arqonce.interruptions import Told


class _Interrupted:
    """Hears a signal while a class is made, as those of many libraries are when they are imported."""

    def __set_name__(self, _owner: type, _name: str) -> None:
        raise Told


def _load_interrupted() -> None:
    type("Loaded", (), {"field": _Interrupted()})


def _load_faulty() -> None:
    raise RuntimeError("a fault of the library")


@pytest.mark.parametrize(("command", "code"), [("run", 0), ("status", 130)])
def test_a_signal_while_a_class_is_made_ends_the_start_in_order(
    monkeypatch: pytest.MonkeyPatch, command: str, code: int
) -> None:
    """Python 3.11 raises another error in its place, which ended the process with a traceback."""
    monkeypatch.setattr(sys, "argv", ["arqonce", command])
    monkeypatch.setattr(beginning, "hear_signals", lambda _code: None)
    monkeypatch.setattr(beginning, "begin_loading", lambda: None)
    monkeypatch.setattr(beginning, "load_libraries", _load_interrupted)

    with pytest.raises(SystemExit) as ended:
        beginning.main()

    assert ended.value.code == code


class _LoadsSlowly:
    """A module in whose loading a signal comes."""

    def __getattr__(self, _name: str) -> None:
        raise Told


def test_a_signal_while_the_console_loads_ends_the_start_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Supervisors took 130 for a failure."""
    monkeypatch.setattr(sys, "argv", ["arqonce", "console"])
    monkeypatch.setattr(beginning, "hear_signals", lambda _code: None)
    monkeypatch.setitem(sys.modules, "arqonce.console.server", _LoadsSlowly())

    with pytest.raises(SystemExit) as ended:
        beginning.main()

    assert ended.value.code == 0


def test_any_other_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its traceback."""
    monkeypatch.setattr(sys, "argv", ["arqonce", "run"])
    monkeypatch.setattr(beginning, "hear_signals", lambda _code: None)
    monkeypatch.setattr(beginning, "begin_loading", lambda: None)
    monkeypatch.setattr(beginning, "load_libraries", _load_faulty)

    with pytest.raises(RuntimeError, match="a fault of the library"):
        beginning.main()


_LOSES_IT = """
import asyncio, os, signal, sys, time
from datetime import timedelta
from arqonce import main
from arqonce.process.ending import Ending

def lose_a_signal(*_):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
    except BaseException:
        pass

async def work():
    ending = Ending(timedelta(seconds=1))
    ending.begin()
    await asyncio.wait_for(ending.told_to_stop().wait(), 5)
    print("told")

def run_app(_application):
    from arqonce.loading import end_loading
    end_loading()
    lose_a_signal()
    asyncio.run(work())

import arqonce.commands.app
arqonce.commands.app.run_app = run_app
if sys.argv.pop() == "while loading":
    main.load_libraries = lose_a_signal
main.main()
"""


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize(("when", "told"), [("while loading", b""), ("before the worker hears", b"told\n")])
def test_no_signal_is_lost_whatever_becomes_of_its_exception(when: str, told: bytes) -> None:
    """The import system ignores what is raised in its callbacks: the worker ran on, and its supervisor waited."""
    program = [sys.executable, "-c", _LOSES_IT, "run", when]

    done = subprocess.run(program, capture_output=True, check=False, timeout=60)

    assert (done.returncode, done.stdout, done.stderr) == (0, told, b"")


_PROGRAM = """
import os, socket, sys
from arqonce.main import hold_standard_files
hold_standard_files()
print("into nothing", file=sys.stderr)
sys.exit(0 if socket.socket().fileno() > 2 and not sys.stdout.isatty() and sys.stdin.read() == "" else 1)
"""


@pytest.mark.usefixtures("starts_processes")
def test_closed_standard_files_are_no_sockets() -> None:
    """A supervisor may close all three: libuv aborts a process whose socket has one of their numbers."""
    closed = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, _PROGRAM], check=False)

    assert closed.returncode == 0
