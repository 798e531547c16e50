"""What messages say to type next."""

import os
import shlex
import sys
from pathlib import Path

import pytest

from arqonce.invocation import as_typed, beside, module_command


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Start as a script in a folder that the shell does not search."""
    script = tmp_path / "bin" / "shop"
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bin/shop", "dev"])
    monkeypatch.setattr(sys, "path", [str(script.parent), *sys.path])
    return str(script)


@pytest.mark.usefixtures("script")
def test_a_script_that_the_shell_does_not_find_is_named_by_its_path() -> None:
    """As after ``make demo``, where no environment is activated."""
    assert as_typed("shop") == "bin/shop"


def test_a_script_that_the_shell_finds_is_named_alone(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an activated environment."""
    monkeypatch.setenv("PATH", os.path.dirname(script), prepend=os.pathsep)  # noqa: PTH120 - a text

    assert as_typed("shop") == "shop"


def test_a_module_is_named_with_its_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python may be no command of the shell either."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/srv/shop/__main__.py", "dev"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setenv("PATH", "/nowhere")

    python = str(Path(sys.executable).with_name("python"))
    assert as_typed("shop") == f"{shlex.quote(python)} -m shop"


@pytest.mark.parametrize(
    ("path", "python", "alembic"),
    [("/nowhere", "'a venv/bin/python'", "'a venv/bin/alembic'"), ("a venv/bin", "python", "alembic")],
    ids=["not activated", "activated"],
)
def test_programs_of_the_environment_are_named_so_that_they_can_be_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, python: str, alembic: str
) -> None:
    """``new-job`` says how to run its test, and another Python has no pytest."""
    programs = tmp_path / "a venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "alembic"):
        (programs / name).touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(programs / "python3"))
    monkeypatch.setenv("PATH", str(tmp_path / path))

    assert (beside("python"), beside("alembic"), beside("none")) == (python, alembic, "none")


@pytest.mark.usefixtures("script")
def test_a_child_of_a_script_does_not_look_in_the_current_folder() -> None:
    """A project there may have a module of the same name, and a worker of its own."""
    assert module_command("worker") == [sys.executable, "-P", "-m", "worker"]


def test_a_child_of_a_module_finds_what_its_parent_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """``python -m shop`` runs a project that is not installed."""
    monkeypatch.setattr(sys, "path", [os.getcwd(), *sys.path])  # noqa: PTH109 - as Python writes it

    assert module_command("shop") == [sys.executable, "-m", "shop"]
