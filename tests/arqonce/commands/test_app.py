"""The command line that an application gets."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from arqonce import Application
from arqonce.commands.app import build_app


def test_a_group_without_its_command_names_the_commands() -> None:
    """Whoever types ``job order-1`` sees what is missing."""
    wrong = CliRunner().invoke(build_app(Application(name="shop"), "job"), ["job", "order-1"])

    assert (wrong.exit_code, "job [OPTIONS] show [ARGS]..." in wrong.output) == (2, True)


@pytest.mark.parametrize("checkout", [None, Path("/somewhere")])
def test_new_job_is_listed_where_it_can_write(checkout: Path | None) -> None:
    """A project without a checkout of this form would only be refused."""
    app = build_app(Application(name="shop", checkout=checkout), None)

    listed = CliRunner().invoke(app, ["--help"]).output

    assert "Run servers and a worker" in listed
    assert ("new-job" in listed) == (checkout is not None)
