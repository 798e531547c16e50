"""``users-worker schema``, as scripts use it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from arqonce.contract.document import build_document
from chaos import careless
from jobs.registry import REGISTRY
from tests import warm

pytestmark = pytest.mark.usefixtures("starts_processes")


def _schema(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run it without any server."""
    return warm.run([sys.executable, "-m", "worker", "schema", *arguments], warm.bare_environment() | environment)


def test_prints_the_document() -> None:
    """On standard output, and nothing else."""
    done = _schema()

    document = json.loads(done.stdout)
    expected = json.loads(
        json.dumps(build_document(REGISTRY, title="users-worker", version=document["info"]["version"]))
    )
    assert (done.returncode, done.stderr, document) == (0, "", expected)


def test_the_jobs_of_other_projects_belong_to_the_contract() -> None:
    """Those that the worker would run by the same setting."""
    done = _schema(WORKER_REGISTRY="chaos.careless:REGISTRY")

    assert set(json.loads(done.stdout)["operations"]) - set(REGISTRY.names) == set(careless.REGISTRY.names)


def test_writes_a_folder(tmp_path: Path) -> None:
    """The document, and JSON Schemas of their own."""
    done = _schema("--output", str(tmp_path / "new" / "contract"))

    names = {file.name for file in (tmp_path / "new" / "contract").iterdir()}
    assert done.returncode == 0, done.stderr
    assert {"asyncapi.json", "failure.schema.json", "create_user.payload.schema.json"} <= names
    assert len(names) == 2 * len(REGISTRY.names) + 2


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Write the document of a version that took more."""
    document = build_document(REGISTRY, title="users-worker", version="0.0.9")
    document["components"]["schemas"]["CreateUser"]["properties"]["age"] = {"type": "integer"}
    file = tmp_path / "old.json"
    file.write_text(json.dumps(document))
    return file


def test_check_lists_what_breaks_and_ends_with_1(old: Path) -> None:
    """One line each, and how many."""
    done = _schema("--check", str(old))

    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "create_user.k.age: field removed (breaks queued jobs and older producers)",
        "1 change breaks the contract of 0.0.9",
    ]


def test_check_says_that_nothing_breaks_and_ends_with_0(tmp_path: Path) -> None:
    """For a pipeline."""
    (tmp_path / "same.json").write_text(_schema().stdout)

    done = _schema("--check", str(tmp_path / "same.json"))

    assert (done.returncode, done.stdout.partition(" of ")[0]) == (0, "keeps the contract")


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"asyncapi": "3.0.0", "x-redis": {}}'])
def test_a_file_that_is_no_contract_is_a_wrong_input(tmp_path: Path, text: str) -> None:
    """One line that names the cure, and 2."""
    (tmp_path / "old.json").write_text(text)

    done = _schema("--check", str(tmp_path / "old.json"))

    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_a_file_that_is_missing_is_a_wrong_input(tmp_path: Path) -> None:
    """The same code."""
    assert _schema("--check", str(tmp_path / "none.json")).returncode == 2
