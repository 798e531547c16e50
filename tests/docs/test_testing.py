"""What the README says about testing is run as another project would, in a folder of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.settings_table import README

pytestmark = pytest.mark.usefixtures("starts_processes")

ROOT = README.parent


def _section() -> str:
    return README.read_text(encoding="utf-8").partition("\n## Test\n")[2].partition("\n## ")[0]


def _tests() -> str:
    return "\n\n".join(re.findall(r"^```python\n(.*?)^```", _section(), re.DOTALL | re.MULTILINE))


def test_the_tests_of_the_readme_pass(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the settings that it names, and servers from wheels."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(test_readme=_tests())

    done = pytester.runpytest_subprocess()

    done.assert_outcomes(passed=3)


def test_the_tests_of_the_readme_type_check(tmp_path: Path) -> None:
    """``run_job`` knows what a payload answers."""
    (tmp_path / "tests_of_readme.py").write_text(_tests().replace(".name ==", ".name.upper() =="))

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "tests_of_readme.py")],
        cwd=ROOT, env=os.environ | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout


def test_every_fixture_that_the_readme_names_is_there(pytester: pytest.Pytester) -> None:
    """With a sentence that says what it is."""
    rows = [line.split("|")[1] for line in _section().splitlines() if line.startswith("| `")]
    named = re.findall(r"`(\w+)`", " ".join(rows))

    told = pytester.runpytest_subprocess("--fixtures", "-p", "no:asyncio").stdout.str()

    assert len(named) == 11
    assert all(re.search(rf"^{name}( \[.*\])? -- .*\n +\S", told, re.MULTILINE) for name in named)
