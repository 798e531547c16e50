"""docs/tutorial.md, followed from its first line to a job in a worker of its own, on an empty database."""

import configparser
import os
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from arqonce.settings.worker import WorkerSettings
from tests.conftest import wait_until
from tests.docs.blocks import ROOT, Block, blocks_in, text_of

pytestmark = pytest.mark.usefixtures("starts_processes")

PAGE = "docs/tutorial.md"
BLOCKS = blocks_in(PAGE)
SKIPPED = {"python -m venv .venv", ". .venv/bin/activate"}
"""Lines that are not executed: the environment is that of the tests."""


def test_every_block_is_used() -> None:
    """Files are written, commands executed, and the unit is read."""
    assert {block.kind for block in BLOCKS} == {"console", "file", "toml", "ini"}


def test_it_installs_what_there_is() -> None:
    """The library, and extras that it has."""
    wanted = [block.code for block in BLOCKS if "pip install" in block.code]
    project = tomllib.loads(next(block.code for block in BLOCKS if block.kind == "toml"))
    library = tomllib.loads((ROOT / "arqonce" / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert len(wanted) == 1
    assert {"worker", "embedded"} <= library["optional-dependencies"].keys()
    assert project["project"]["dependencies"] == ["arqonce[worker]"]


def test_the_unit_of_systemd_waits_for_the_end_of_a_worker() -> None:
    """It kills no worker that keeps to its grace."""
    (unit,) = [block.code for block in BLOCKS if block.kind == "ini"]
    service = configparser.ConfigParser(strict=False)
    service.optionxform = str  # type: ignore[assignment, method-assign] # systemd's names have capitals
    service.read_string(unit)
    grace: timedelta = WorkerSettings.model_fields["shutdown_grace"].default

    assert int(service["Service"]["TimeoutStopSec"]) >= (grace + timedelta(seconds=30)).total_seconds()
    assert "guestbook run --processes 2" in service["Service"]["ExecStart"]


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Make an empty folder, and the environment of a shell in which the project is installed."""
    programs = tmp_path / "bin"
    programs.mkdir()
    guestbook = programs / "guestbook"
    guestbook.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m guestbook "$@"\n')
    guestbook.chmod(0o755)
    return tmp_path, {
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "project"), str(ROOT)]),
    }


def _script() -> str:
    return "\n".join(map(_step, BLOCKS))


def _step(block: Block) -> str:
    if block.kind in {"file", "toml"}:
        return f"cat > {shlex.quote(str(block.file))} <<'THE_END'\n{block.code}THE_END"
    if block.kind != "console":
        return ""
    lines = [line for line in block.code.splitlines() if line not in SKIPPED and not line.startswith("pip ")]
    return "\n".join(lines)


@contextmanager
def _second_terminal(where: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run ``guestbook dev`` until the rest is done; yield the lines that it wants to be run."""
    output = where / "dev.log"
    with output.open("wb") as log:
        dev = subprocess.Popen(["guestbook", "dev"], cwd=where, env=environment, stdout=log, stderr=log)
    try:
        wait_until(lambda: dev.poll() is not None or "next, in another terminal" in output.read_text(), 60)
        yield "".join(line for line in output.read_text().splitlines(keepends=True) if line.startswith("export "))
    finally:
        dev.send_signal(signal.SIGINT)
        code = dev.wait(60)
    assert code == 0, output.read_text()
    assert "guestbook has no migrations yet" in output.read_text()


@pytest.mark.timeout(300)  # it starts Python a dozen times, one after another
def test_the_tutorial_works(place: tuple[Path, dict[str, str]]) -> None:
    """As it stands there, in one shell, and in a second one for its servers and its worker."""
    folder, environment = place
    before, dev, after = _script().partition("guestbook dev\n")

    def shell(script: str, where: Path) -> str:
        done = subprocess.run(
            ["sh", "-eu"],
            input=script,
            cwd=where,
            env=environment,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    shell(before, folder)
    assert dev
    with _second_terminal(folder / "project", environment) as exports:
        done = shell(exports + after, folder / "project")

    assert "3 passed" in done
    assert "Warning" not in done
    assert '"guest": "Jane"' in done
    assert "Joan has signed as number 2" in done
    assert "Jane has signed before" in done


def test_its_links_lead_on() -> None:
    """To the pages that a project in production needs."""
    assert {"operations.md", "settings.md", "security.md", "changing-jobs.md"} <= {
        part.partition(")")[0].partition("#")[0] for part in text_of(PAGE).split("](")
    }
