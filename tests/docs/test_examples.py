"""The jobs and tests on every page: run as another project would, in a folder of its own, and type-checked."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from arqonce import Registry
from arqonce.testing.run_job import RunJob
from tests import warm
from tests.docs.blocks import ROOT, blocks_in, blocks_of, text_of
from tests.docs.test_blocks import OWN_TESTS
from tests.type_cache import CACHE

(SETTINGS,) = blocks_of("toml", besides=frozenset(OWN_TESTS))
FILES = blocks_of("file", besides=frozenset(OWN_TESTS))
TESTS = blocks_of("test", besides=frozenset(OWN_TESTS))
PROGRAMS = blocks_of("program", "django", besides=frozenset(OWN_TESTS))
TUTORIAL = [block for block in blocks_in("docs/tutorial.md", "file") if (block.file or "").endswith(".py")]
FOUND = sum(len(re.findall(r"^(?:async )?def test_", block.code, re.MULTILINE)) for block in [*FILES, *TESTS])


def test_the_tests_of_all_pages_pass(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the settings that the pages name, and servers from wheels."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(pytester.path)]))
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytester.makepyprojecttoml(SETTINGS.code)
    for block in FILES:
        (pytester.path / str(block.file)).write_text(block.code)
    for block in TESTS:
        (pytester.path / f"test_{block.name}.py").write_text(block.code)

    done = warm.run_pytest(pytester)

    assert FOUND >= 10
    done.assert_outcomes(passed=FOUND)


async def test_the_job_of_the_readme_is_one(run_job: RunJob) -> None:
    """It stores somebody, with nothing but what stands there."""
    job: dict[str, object] = {"__name__": __name__}
    exec(blocks_in("README.md", "program")[0].code, job)  # noqa: S102 - our own text
    registry = job["REGISTRY"]
    assert isinstance(registry, Registry)
    (spec,) = registry

    stored = await run_job(spec.payload(name="Jane"), registry=registry)

    assert stored.id > 0


def _stricter(code: str) -> str:
    """Use what a result is, so that one of no type would be found."""
    return code.replace("user.id", "user.id + 1").replace(".name ==", ".name.upper() ==")


@pytest.mark.usefixtures("starts_processes")
def test_all_blocks_type_check(tmp_path: Path) -> None:
    """``result`` of a ``CreateUser`` is a user to mypy, and ``run_job`` knows what a payload answers."""
    tutorial = tmp_path / "tutorial"
    for block in TUTORIAL:
        file = tutorial / str(block.file)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.code)
    (tutorial / "guestbook" / "__init__.py").touch()
    for block in [*FILES, *TESTS, *PROGRAMS]:
        (tmp_path / (block.file or f"{block.name}.py")).write_text(_stricter(block.code))
    paths = [str(path) for path in (tmp_path, tutorial, ROOT)]
    command = [
        "mypy",
        "--strict",
        "--cache-dir",
        str(CACHE),
        *map(str, tmp_path.glob("*.py")),
        *map(str, tutorial.rglob("*.py")),
    ]

    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT, env=os.environ | {"MYPYPATH": os.pathsep.join(paths)}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout


def test_every_fixture_that_the_page_names_is_there(pytester: pytest.Pytester) -> None:
    """With a sentence that says what it is."""
    section = text_of("docs/testing.md").partition("\n## Fixtures\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    named = re.findall(r"`(\w+)`", " ".join(rows))

    shown = warm.run_pytest(pytester, "--fixtures", "-p", "no:asyncio").stdout.str()

    assert len(named) == 12
    assert all(re.search(rf"^{name}( \[.*\])? -- .*\n +\S", shown, re.MULTILINE) for name in named)
