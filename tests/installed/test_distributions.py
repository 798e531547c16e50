"""What is in each wheel, and that its sdist makes the same."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.installed.conftest import LIBRARY, PAYLOADS, ROOT, build

_ROOMS = ["arqonce", "db", "jobs", "people", "worker", "web", "bench", "chaos"]


def _project(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())
    return found


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def _tracked(folder: Path) -> set[str]:
    told = subprocess.run(["git", "ls-files", folder.name], cwd=folder.parent, capture_output=True, check=True)
    return set(told.stdout.decode().split())


def test_wheel_of_the_library_is_the_folder(library: Path) -> None:
    """All rooms, migrations, templates and py.typed; nothing else, and nothing beside the package."""
    about = {"arqonce/pyproject.toml", "arqonce/README.md", "arqonce/LICENSE"}

    assert _names(library) == _tracked(LIBRARY) - about
    assert {"arqonce/py.typed", "arqonce/database/alembic/script.py.mako"} <= _names(library)


def test_wheel_of_the_payloads_is_what_producers_import(payloads: Path) -> None:
    """As it is in ``jobs/``, byte for byte, under the name that a service's own packages do not have."""
    names = ["__init__.py", "fields.py", "payloads.py", "py.typed"]

    with zipfile.ZipFile(payloads) as archive:
        texts = [archive.read(f"users_jobs/{name}") for name in names]

    assert _names(payloads) == {f"users_jobs/{name}" for name in names}
    assert texts == [(PAYLOADS / name).read_bytes() for name in names]


def test_wheel_of_the_application_has_no_library(tmp_path: Path) -> None:
    """It depends on it, and its payloads' other distribution is none of its business."""
    build(ROOT, tmp_path, "-t", "wheel")
    (wheel,) = tmp_path.glob("*.whl")

    names = _names(wheel)

    assert {name.partition("/")[0] for name in names} == {"db", "jobs", "people", "worker", "web", "users_jobs.py"}
    assert not names & {f"jobs/{name}" for name in ("pyproject.toml", "README.md", "LICENSE")}


@pytest.mark.parametrize("name", ["arqonce", "users_jobs"])
def test_sdist_builds_the_same_wheel_also_beside_foreign_packages(built: Path, service: Path, name: str) -> None:
    """An sdist needs no checkout, and takes nothing from the folder around it."""
    (sdist,) = built.glob(f"{name}-*.tar.gz")
    (wheel,) = built.glob(f"{name}-*.whl")
    with tarfile.open(sdist) as archive:
        archive.extractall(service, filter="data")
    (unpacked,) = service.glob(f"{name}-*")

    build(unpacked, service / "dist", "-t", "wheel")

    assert (service / "dist" / wheel.name).read_bytes() == wheel.read_bytes()


def test_pip_installs_them_from_the_checkout(built: Path, tmp_path: Path) -> None:
    """With ``pip install ./arqonce ./jobs``: the folders alone are named."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]

    subprocess.run([*command, "-w", str(tmp_path), str(LIBRARY), str(PAYLOADS)], check=True, capture_output=True)

    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        file.name: file.read_bytes() for file in built.glob("*.whl")
    }


def test_versions_and_dependencies_agree() -> None:
    """Three files say them; a producer asks for nothing that a worker would refuse."""
    library, payloads, whole = (_project(folder)["project"] for folder in (LIBRARY, PAYLOADS, ROOT))

    assert {found["version"] for found in (library, payloads, whole)} == {whole["version"]}
    assert {found["requires-python"] for found in (library, payloads, whole)} == {whole["requires-python"]}
    assert library["dependencies"] == ["pydantic>=2.11", "redis[hiredis]>=5.2,<9"]
    assert payloads["dependencies"] == ["arqonce>=0.1,<0.2", "idna>=3.10"]
    assert whole["dependencies"] == [f"arqonce[worker]=={whole['version']}", "idna>=3.10"]
    for folder in (LIBRARY, PAYLOADS):
        assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize(
    "name",
    ["arqonce/connection/tls.py", "arqonce/testing/answers.py", "jobs/fields.py"],
    ids=lambda name: Path(name).stem,
)
def test_source_that_imports_more_than_is_installed_breaks_a_contract(name: str, tmp_path: Path) -> None:
    """A module that a producer cannot import fails ``make contracts``, and not the service; also a late import."""
    for room in _ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / name).open("a") as module:
        module.write("\n\ndef late() -> None:\n    import sqlalchemy\n")

    lint = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-logo", "--no-cache", "--contract", "producer"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert lint.returncode == 1, lint.stdout + lint.stderr
    assert f"{name.removesuffix('.py').replace('/', '.')} -> sqlalchemy" in lint.stdout


def test_what_producers_get_is_what_that_contract_watches(payloads: Path) -> None:
    """So that neither list is forgotten: each module of theirs, and the rooms that these and their tests load."""
    contracts = _project(ROOT)["tool"]["importlinter"]["contracts"]
    (contract,) = [found for found in contracts if found.get("id") == "producer"]
    modules = {Path(name).stem for name in _names(payloads) if name.endswith(".py")}

    watched = set(contract["source_modules"])

    assert {f"jobs.{module}" for module in modules - {"__init__"}} <= watched
    assert {"arqonce.client", "arqonce.outbox", "arqonce.testing.enqueued", "arqonce.testing.stand_ins"} <= watched
