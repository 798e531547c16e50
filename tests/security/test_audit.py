"""``make audit`` fails on a finding, and says so where nothing could be looked up. A stand-in gives pip-audit's answer.

Its answers here are those of pip-audit 2.10; asking its database is no test's business.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("starts_processes")

AUDIT = Path(__file__).parents[2] / "requirements" / "audit.py"

WELL = {"name": "good", "version": "1.0", "vulns": []}
FLAWED = {"name": "bad", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"], "aliases": []}]}
UNKNOWN = {"name": "odd", "skip_reason": "Dependency not found on PyPI and could not be audited: odd (3.0)"}


def _audit(directory: Path, answer: str, *, code: int) -> tuple[int, str]:
    """Run the script with a stand-in for the module ``pip_audit``."""
    (directory / "pip_audit.py").write_text(f"import sys\nprint({answer!r})\nsys.exit({code})\n")
    environment = os.environ | {"PYTHONPATH": str(directory)}
    done = subprocess.run([sys.executable, str(AUDIT)], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


def _packages(*packages: object) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_a_vulnerability_fails(tmp_path: Path) -> None:
    """And is named, with the version that mends it."""
    code, output = _audit(tmp_path, _packages(WELL, FLAWED, UNKNOWN), code=1)

    assert code == 1
    assert "bad 2.0: PYSEC-1, mended in 2.1" in output
    assert "NOT AUDITED, unknown to the database: odd" in output


def test_without_a_finding_all_is_well(tmp_path: Path) -> None:
    """One line says how much was looked up."""
    assert _audit(tmp_path, _packages(WELL), code=0) == (0, "audited 1 dependencies, 0 vulnerabilities\n")


@pytest.mark.parametrize(
    ("answer", "code"), [("", 1), ("Connection refused", 1), (_packages(), 0), (_packages(UNKNOWN), 0)]
)
def test_an_unreachable_database_is_told_and_fails_nothing(tmp_path: Path, answer: str, code: int) -> None:
    """It fails, or knows no package at all, which is how a mere mirror of the registry answers."""
    ended, output = _audit(tmp_path, answer, code=code)

    assert ended == 0
    assert output.startswith("NOT AUDITED: the database of vulnerabilities cannot be reached")
    assert output.endswith("audited 0 dependencies, 0 vulnerabilities\n")
