"""Programs that a warm process forks: real processes, which end as those that Python starts do."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from arqonce.testing.programs import Programs, warm_command
from tests import kinds, warm
from tests.conftest import wait_until

HELLO = """
import json, os, signal, sys, threading
json.dump(
    {
        "argv": sys.argv, "orig_argv": sys.orig_argv[1:], "path": sys.path[:2], "name": __name__,
        "environment": dict(os.environ), "folder": os.getcwd(), "session": os.getsid(0) == os.getpid(),
        "terminates": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        "interrupts": signal.getsignal(signal.SIGINT) == signal.default_int_handler,
        "input": sys.stdin.read(), "descriptors": len(os.listdir("/proc/self/fd")),
    },
    sys.stdout,
)
threading.Timer(0.1, lambda: print("a thread's last word", file=sys.stderr)).start()
sys.exit(7)
"""
WAITS = "import sys, time\nprint('waiting', flush=True)\ntime.sleep(60)\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make modules hello and waits, which can be forked."""
    (tmp_path / "hello.py").write_text(HELLO)
    (tmp_path / "waits.py").write_text(WAITS)
    monkeypatch.setattr("arqonce.testing.programs.WARM", {"hello": (), "waits": ()})
    return tmp_path


def _environment(project: Path) -> dict[str, str]:
    return warm.bare_environment() | {"PYTHONPATH": str(project / "else"), "MARK": "a mark"}


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_fork_is_as_a_process_that_python_starts(project: Path, jobs_programs: Programs) -> None:
    """Its arguments, path, environment, folder, session, signals and input; its threads are waited for at the end."""
    done = jobs_programs.run("hello", "--now", environment=_environment(project), directory=project)

    found = json.loads(done.stdout)
    found["argv"][0] = Path(found["argv"][0]).name
    assert (done.returncode, done.stderr) == (7, "a thread's last word\n")
    assert found == {
        "argv": ["hello.py", "--now"], "orig_argv": ["-m", "hello", "--now"], "name": "__main__",
        "path": [str(project), str(project / "else")], "environment": _environment(project), "folder": str(project),
        "session": True, "terminates": True, "interrupts": True, "input": "", "descriptors": 4,
    }  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_fork_gets_signals_and_tells_its_end(
    number: signal.Signals, project: Path, tmp_path: Path, jobs_programs: Programs
) -> None:
    """As Popen tells it: the signal's number, negative."""
    log = tmp_path / "log"
    process = jobs_programs.start("waits", environment=_environment(project), directory=project, output=log)
    wait_until(lambda: "waiting" in log.read_text(), 20)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    before = process.poll()

    process.send_signal(number)

    assert (before, process.wait(20), process.poll(), process.returncode) == (None, -number, -number, -number)
    process.kill()  # harms nobody


@pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")
def test_what_needs_an_interpreter_of_its_own_is_not_forked(tmp_path: Path) -> None:
    """Programs of others, other settings of Python, and modules that Python runs at its start."""
    ours, environment = (sys.executable, "-m", "worker", "run"), dict(os.environ)
    (tmp_path / "sitecustomize.py").touch()

    forked = [
        warm_command(ours, environment),
        warm_command([*ours, "--processes", "2"], environment),
        warm_command(["sh", "-c", "exit"], environment),
        warm_command([sys.executable, "-m", "http.server"], environment),
        warm_command(ours, environment | {"PYTHONASYNCIODEBUG": "1"}),
        warm_command(ours, environment | {"PYTHONPATH": str(tmp_path)}),
    ]

    assert forked == [["worker", "run"], ["worker", "run", "--processes", "2"], None, None, None, None]


def test_a_quick_test_that_starts_a_process_fails(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the marks would say nothing."""
    monkeypatch.setattr(kinds._Watch, "test", request.node)

    with pytest.raises(pytest.fail.Exception, match="it is no quick test"):
        subprocess.run(["true"], check=False)
