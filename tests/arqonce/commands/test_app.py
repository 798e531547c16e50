"""The command line that an application gets."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from arqonce import Application
from arqonce.commands.app import build_app


@pytest.mark.parametrize("checkout", [None, Path("/somewhere")])
def test_new_job_is_listed_where_it_can_write(checkout: Path | None) -> None:
    """A project without a checkout of this form would only be refused."""
    app = build_app(Application(name="shop", checkout=checkout), None)

    listed = CliRunner().invoke(app, ["--help"]).output

    assert "Run servers and a worker" in listed
    assert ("new-job" in listed) == (checkout is not None)
