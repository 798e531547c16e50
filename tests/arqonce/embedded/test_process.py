"""Child processes."""

from pathlib import Path

import pytest

from arqonce.embedded import EmbeddedServerError
from arqonce.embedded.process import run_tool

pytestmark = pytest.mark.usefixtures("starts_processes")


def test_program_for_another_platform_is_an_error_with_its_cure(tmp_path: Path) -> None:
    """A wheel's program may be one that this machine cannot run."""
    program = tmp_path / "program"
    program.write_bytes(b"not a program")
    program.chmod(0o755)

    with pytest.raises(EmbeddedServerError, match=r"program cannot be run: .*Exec format error.* Cure: "):
        run_tool([program], account=None)
