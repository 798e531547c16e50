"""The command line that an application gets."""

from contextvars import copy_context
from pathlib import Path

import pytest
from typer.testing import CliRunner

from arqonce import Application, Registry
from arqonce.commands.app import build_app, run_application


def test_a_group_without_its_command_names_the_commands() -> None:
    """Whoever types ``job order-1`` sees what is missing."""
    wrong = CliRunner().invoke(build_app(Application(name="shop"), "job"), ["job", "order-1"])

    assert (wrong.exit_code, "job [OPTIONS] show [ARGS]..." in wrong.output) == (2, True)


@pytest.mark.parametrize("typed", ["run --help", "run -h", "help run"])
def test_help_is_asked_for_in_each_usual_way(
    typed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the command line itself and of each command."""
    monkeypatch.setattr("sys.argv", ["shop", *typed.split()])

    with pytest.raises(SystemExit) as ended:
        run_application(Application(name="shop"))

    assert (ended.value.code, "Run a worker until SIGTERM" in capsys.readouterr().out) == (0, True)


FIRST, SECOND = Registry(), Registry()


@pytest.mark.parametrize(
    ("typed", "problem"),
    [
        ("run", "there are no jobs to run: name a registry"),
        (f"run --registry {__name__}:FIRST", f"{__name__}:FIRST has no jobs yet: add one, as in Registry(JobSpec("),
        (f"run --registry={__name__}:FIRST --registry {__name__}:SECOND", f"{__name__}:FIRST,{__name__}:SECOND has no"),
        ("run --registry", "--registry needs a value"),
    ],
)
def test_a_registry_without_jobs_is_not_taken_for_none(
    typed: str, problem: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The option may be there twice."""
    monkeypatch.setattr("sys.argv", ["shop", *typed.split()])
    monkeypatch.setenv("WORKER_REGISTRY", "")

    with pytest.raises(SystemExit) as ended:
        copy_context().run(run_application, Application(name="shop"))  # the option is kept in the context

    assert (ended.value.code, problem in capsys.readouterr().err) == (2, True)


@pytest.mark.parametrize("name", ["", "ja ne", "jürgen", "x" * 101])
def test_a_token_is_made_only_for_a_name_that_the_console_takes(name: str) -> None:
    """Its entry would be refused at the start."""
    app = build_app(Application(name="shop"), "console")

    made = CliRunner().invoke(app, ["console", "token", name])

    assert (made.exit_code, "is not a person's name" in made.output, "sha256" in made.output) == (2, True, False)


@pytest.mark.parametrize("checkout", [None, Path("/somewhere")])
def test_new_job_is_listed_where_it_can_write(checkout: Path | None) -> None:
    """A project without a checkout of this form would only be refused."""
    app = build_app(Application(name="shop", checkout=checkout), None)

    listed = CliRunner().invoke(app, ["--help"]).output

    assert "Run servers and a worker" in listed
    assert ("new-job" in listed) == (checkout is not None)
