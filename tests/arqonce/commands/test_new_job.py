"""``users-worker new-job`` in a copy of the project: what it writes passes every check."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from arqonce.commands.checkout import CheckoutError, write_together
from arqonce.commands.job_files import NewJob
from arqonce.commands.python_source import SourceError, import_line, with_argument, with_import
from arqonce.database.schema import revisions
from arqonce.usage import UsageError
from db.tables import SCHEMA
from jobs.registry import REGISTRY
from tests import warm

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Project:
    """A copy of the project, as a developer's checkout."""

    root: Path
    environment: dict[str, str]

    def run(self, *command: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Run a module of Python in it, to the end."""
        return warm.run_elsewhere(*command, env=self.environment, cwd=cwd or self.root)

    def new_job(self, *arguments: str, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Run the command."""
        return self.run("worker", "new-job", *arguments, cwd=cwd)

    def state(self) -> dict[str, bytes]:
        """Return all files with their contents."""
        files = (file for file in self.root.rglob("*") if file.is_file() and "cache" not in str(file))
        return {str(file.relative_to(self.root)): file.read_bytes() for file in files}


def _copy(directory: Path) -> Path:
    copy = directory / "project"
    for name in ("db", "jobs", "people", "worker", "web", "tests"):  # the library is installed
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "jobs" / "mailing").mkdir(exist_ok=True)  # a folder of that name
    for file in ("pyproject.toml", "users_jobs.py"):
        shutil.copy(ROOT / file, copy)
    return copy


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Copy the project; it has no servers."""
    root = _copy(tmp_path)
    return Project(root, os.environ | {"PYTHONPATH": str(root), "NO_COLOR": "1"})


EACH = pytest.mark.parametrize("options", [(), ("--table", "audit_notes")], ids=["no table", "table"])


@pytest.mark.usefixtures("starts_processes")
@EACH
def test_its_test_passes_as_it_is(project: Project, options: tuple[str, ...]) -> None:
    """On a real database, with the table if there is one; migrations and tables still agree."""
    made = project.new_job("audit_user", *options)

    tested = project.run(
        "pytest", "-q", "-p", "no:cacheprovider",
        "tests/jobs/test_audit_user.py",
        "tests/arqonce/ledger/test_migrations.py::test_migrations_make_the_tables_of_the_code",
    )  # fmt: skip

    assert (made.returncode, made.stderr) == (0, "")
    assert f"{2 if options else 3} passed" in tested.stdout, tested.stdout + tested.stderr


@pytest.mark.usefixtures("starts_processes")
@EACH
def test_what_it_writes_passes_every_check(project: Project, options: tuple[str, ...]) -> None:
    """Formatter, linter and type checker have nothing to say, also of the longest name."""
    for name in ("audit_user", "a" * 40, "zz_last"):
        table = [f"{name[:30]}_rows"] if options else []
        made = project.new_job(name, *options[:1], *table)
        assert made.returncode == 0, made.stderr

    lint = project.run("ruff", "check", "--no-cache", "jobs", "db", "tests/jobs")
    format_ = project.run("ruff", "format", "--check", "--no-cache", "jobs", "db", "tests/jobs")
    types = project.run(
        "mypy", "--cache-dir", str(ROOT / ".mypy_cache" / "copies"), "jobs/registry.py", "tests/jobs/test_audit_user.py"
    )

    assert lint.returncode == 0, lint.stdout
    assert format_.returncode == 0, format_.stdout
    assert types.returncode == 0, types.stdout


@pytest.mark.usefixtures("starts_processes")
def test_it_says_what_it_wrote_and_what_is_next(project: Project) -> None:
    """A newcomer reads no documentation for this."""
    before = set(project.state())
    done = project.new_job("audit_user", "--table", "audit_notes")

    said = re.findall(r"^(?:wrote|added to) (\S+)$", done.stdout, re.MULTILINE)
    new = set(project.state()) - before
    migration = f"db/migrations/{int(revisions(SCHEMA)[-1]) + 1:04}_audit_notes.py"
    assert new == {"jobs/audit_user.py", "tests/jobs/test_audit_user.py", migration}
    assert set(said) == new | {"jobs/payloads.py", "jobs/registry.py", "db/tables.py"}
    assert " -m pytest tests/jobs/test_audit_user.py" in done.stdout
    assert "producers write: from jobs.payloads import AuditUser" in done.stdout


@pytest.mark.usefixtures("starts_processes")
def test_the_command_line_knows_the_new_job(project: Project) -> None:
    """And a second one is added beside the first."""
    first, second = project.new_job("audit_user"), project.new_job("blame_user")

    listed = project.run("worker", "enqueue", "--help")

    assert (first.returncode, second.returncode) == (0, 0)
    assert {"audit_user", "blame_user"} <= set(listed.stdout.split())


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["AuditUser"], "a job cannot be called 'AuditUser': up to 40 of a-z"),
        (["audit-user"], "a job cannot be called 'audit-user'"),
        (["1st"], "a job cannot be called '1st'"),
        (["a__b"], "a job cannot be called 'a__b'"),
        (["../evil"], "a job cannot be called '../evil'"),
        (["a" * 300], "a job cannot be called"),
        (["import"], "a job cannot be called 'import'"),
        (["refuse_message"], "that name is used by its own files, or by the worker"),
        (["session"], "that name is used by its own files"),
        (["create_user"], "there is a job create_user already: see jobs/registry.py"),
        (["users"], "jobs/users.py exists already"),
        (["mailing"], "jobs/mailing exists already"),
        (["new_user"], "jobs/payloads.py has a NewUser already"),
        (["registry_"], "a job cannot be called 'registry_'"),
        (["job_spec"], "jobs/registry.py has a JobSpec already"),
        (["audit_user", "--table", "Notes"], "a table cannot be called 'Notes'"),
        (["audit_user", "--table", "users"], "there is a table users already"),
        (["audit_user", "--table", "user"], "db/tables.py has a User already"),
        (["audit_user", "--table", "audit_user"], "table and job would both have a class AuditUser"),
    ],
    ids=lambda value: " ".join(value)[:20] if isinstance(value, list) else "",
)
def test_a_bad_or_taken_name_is_refused_and_nothing_is_written(
    shared_project: Project, arguments: list[str], problem: str
) -> None:
    """One line, exit code 2."""
    before = shared_project.state()

    done = shared_project.new_job(*arguments)

    assert done.returncode == 2
    assert problem in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert shared_project.state() == before


@pytest.mark.parametrize("name", ["a" * 41, "print", "id", "lambda"])
def test_names_of_python_and_long_ones_are_refused(name: str) -> None:
    """The linter would refuse them later."""
    with pytest.raises(UsageError, match=r"up to 40 of a-z, 0-9 and single _, .* no word or builtin of Python"):
        NewJob(ROOT, REGISTRY, name, None).files()


@pytest.mark.parametrize(("name", "table"), [("test_mail", None), ("testing", None), ("audit_user", "test_results")])
def test_names_of_tests_are_refused(name: str, table: str | None) -> None:
    """Their test would not pass: pytest takes handler or class for another test."""
    with pytest.raises(UsageError, match=r"cannot be called 'test.*': pytest takes names that begin with test"):
        NewJob(ROOT, REGISTRY, name, table).files()


@pytest.fixture(scope="module")
def shared_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Copy the project once, for tests that change nothing."""
    root = _copy(tmp_path_factory.mktemp("shared"))
    return Project(root, os.environ | {"PYTHONPATH": str(root), "NO_COLOR": "1"})


@pytest.mark.usefixtures("starts_processes")
def test_elsewhere_it_says_where_to_run_it(shared_project: Project, tmp_path: Path) -> None:
    """In another folder it would write where nobody looks."""
    done = shared_project.new_job("audit_user", cwd=tmp_path)

    assert done.returncode == 2
    assert f"not in the checkout of users-worker: run this in {shared_project.root}" in done.stderr


@pytest.mark.usefixtures("starts_processes")
def test_an_installed_copy_points_to_a_project_of_ones_own(project: Project) -> None:
    """The packages without their project are no place to write to."""
    (project.root / "pyproject.toml").unlink()

    done = project.new_job("audit_user")

    assert done.returncode == 2
    assert "this is an installed copy of users-worker" in done.stderr
    assert "WORKER_REGISTRY" in done.stderr


@pytest.mark.parametrize("at", ["staging", "putting"])
def test_a_failure_half_way_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """A full disk, for instance, or a folder that may not be written."""
    old, new = tmp_path / "old.py", tmp_path / "new.py"
    old.write_text("old")
    third = tmp_path / "missing" / "third.py" if at == "staging" else tmp_path / "third.py"
    if at == "putting":
        replace, calls = os.replace, iter([True, True, False])

        def fail_at_last(source: Path, target: Path) -> None:
            if not next(calls):
                raise OSError(28, "No space left on device", str(target))
            replace(source, target)

        monkeypatch.setattr(os, "replace", fail_at_last)

    with pytest.raises(CheckoutError, match="nothing was written"):
        write_together({old: "changed", new: "new", third: "third"})

    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"old.py": "old"}


def test_a_registry_of_another_form_is_not_guessed_at() -> None:
    """Somebody has rewritten it: an error, and no broken file."""
    with pytest.raises(SourceError, match="there is no call REGISTRY"):
        with_argument("REGISTRY = Registry(A)\n", "REGISTRY", "B")


@pytest.mark.parametrize(
    ("source", "module", "expected"),
    [
        ("from a.b import D\n", "a.b", "from a.b import C, D\n"),
        ("from a.d import X\nfrom b import Y\n", "a.b", "from a.b import C\nfrom a.d import X\nfrom b import Y\n"),
        ("from a.a import X\n\nY = 1\n", "a.b", "from a.a import X\nfrom a.b import C\n\nY = 1\n"),
        ("from a.b import (\n    D,\n    e,\n    F_G,\n)\n", "a.b", "from a.b import F_G, C, D, e\n"),
    ],
)
def test_an_import_goes_where_the_formatter_has_it(source: str, module: str, expected: str) -> None:
    """Constants, classes, functions; modules in their order."""
    assert with_import(source, module, "C") == expected


def test_a_long_import_takes_several_lines() -> None:
    """One name on each."""
    names = [f"Name{number:02}" for number in range(20)]

    assert import_line("a.b", *names) == "from a.b import (\n" + "".join(f"    {name},\n" for name in names) + ")\n"
