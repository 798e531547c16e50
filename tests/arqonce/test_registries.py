"""Registries of other projects: what can be wrong with them, and what is said about it. No server is needed."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from arqonce import registries
from arqonce.environment import SettingsError
from arqonce.registries import RegistryError
from arqonce.settings.worker import WorkerSettings
from arqonce.spec import Registry
from db.tables import SCHEMA
from jobs.registry import REGISTRY

Write = Callable[[str], str]


def load_registry(names: str | None) -> Registry:
    """Load them beside ours, as our worker does."""
    return registries.load_registry(names, REGISTRY, owner="users-worker")


HEAD = """
from pathlib import Path
from typing import ClassVar
from sqlalchemy import MetaData, Table
from arqonce.database.schema import Schema
from db.tables import Base as OurBase
from arqonce.payloads import Payload, Result
from arqonce.spec import JobSpec, Registry

class Done(Result):
    pass

class Settings(Result, hide_input_in_errors=False):
    port: int
    url: str

def job(name, **options):
    class Job(Payload[Done]):
        job_name: ClassVar[str] = name
    return JobSpec(Job, work, **options)

def late(field, result):  # annotations as texts, as those of "from __future__ import annotations"
    class LateResult(Result):
        done: result
    class Late(Payload[LateResult]):
        job_name: ClassVar[str] = "late"
        one: field
    for kind in (LateResult, Late):
        kind.__qualname__ = kind.__name__
    return Registry(JobSpec(Late, work))

async def work(session, payload):
    return Done()

def schema(*tables, name="theirs"):
    metadata = MetaData()
    for table in tables:
        Table(table, metadata)
    return Schema(name, metadata, Path(), version_table=f"alembic_version_{name}")
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return what writes the module ``theirs`` and names its registry."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(code: str) -> str:
        (tmp_path / "theirs.py").write_text(HEAD + code)
        monkeypatch.delitem(sys.modules, "theirs", raising=False)
        return "theirs:REGISTRY"

    return write


@pytest.mark.parametrize("names", [None, "", " , "])
def test_without_the_setting_there_are_our_jobs(names: str | None) -> None:
    """And no table of anybody else."""
    registry = load_registry(names)

    assert (registry.names, registry.schemas) == (REGISTRY.names, (SCHEMA,))


def test_the_jobs_of_several_come_beside_ours(write: Write) -> None:
    """In their order, each registry with its tables."""
    write(
        'REGISTRY = Registry(job("a"), job("b", former_names=("c",)), schema=schema("as"))\n'
        'OTHER = Registry(job("d"), schema=schema("ds", name="other"))\n'
    )

    registry = load_registry("theirs:REGISTRY, theirs:OTHER")

    assert [spec.name for spec in registry][len(list(REGISTRY)) :] == ["a", "b", "d"]
    assert "c" in registry
    assert [schema.name for schema in registry.schemas] == ["users_worker", "theirs", "other"]


def test_registries_of_one_project_share_its_schema(write: Write) -> None:
    """A project may have several, for several kinds of workers."""
    write('ONE = schema("as")\nREGISTRY = Registry(job("a"), schema=ONE)\nOTHER = Registry(job("b"), schema=ONE)\n')

    assert len(load_registry("theirs:REGISTRY theirs:OTHER").schemas) == 2


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("REGISTRY = Registry(job('create_user'))", "the job create_user is one of users-worker: give its payload"),
        ("REGISTRY = Registry(job('a', former_names=('find_user',)))", "the job find_user is one of users-worker"),
        ("REGISTRY = Registry(job('a'), job('b', former_names=('a',)))", "two jobs have the same job_name a: those of"),
        ("REGISTRY = Registry(schema=schema('users'))", "its table users is one of users-worker: give it another"),
        ("REGISTRY = Registry(schema=schema('alembic_version'))", "its table alembic_version is one of users-worker"),
        ("REGISTRY = Registry(schema=Schema('x', MetaData(), Path()))", "its version_table alembic_version is that of"),
        ("REGISTRY = Registry(schema=Schema('x', OurBase.metadata, Path()))", "give it a DeclarativeBase of its own"),
        ("REGISTRY = Registry(schema=schema('x', name='X-1'))", "the schema's name 'X-1' must be 1 to 40 of a-z"),
        ("REGISTRY = late('Day', 'Done')", "an annotation of theirs.Late has no Day at run time: import it outside of"),
        ("REGISTRY = late('int', 'Day')", "an annotation of theirs.LateResult has no Day at run time: import it"),
        ("REGISTRY = [job('a')]", "is no arqonce.Registry, but of type list; the module has no"),
        ("REGISTRYS = 1", "there is no REGISTRY in theirs; the module has no arqonce.Registry"),
        ("JOBS = Registry(job('a'))", "there is no REGISTRY in theirs. Its registries are: JOBS"),
        ("Path.nothing", "cannot be imported: AttributeError: type object 'Path' has no attribute 'nothing'"),
        ("raise ValueError('one\\n  two')", "cannot be imported: ValueError: one two (/"),
        ("Settings(port='s3cret')", "ValidationError: Settings: port: Input should be a valid integer, unable"),
        ("Settings()", "ValidationError: Settings: port: Field required; url: Field required (/"),
        ("import nowhere", "cannot be imported: No module named 'nowhere'"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("def", "cannot be imported: SyntaxError: invalid syntax"),
        ("raise SystemExit(7)", "cannot be imported: SystemExit: 7"),
        ("Path.nothing", "theirs.py, line 40)"),
        ("import nowhere", "theirs.py, line 40)"),
        ("raise SystemExit(7)", "theirs.py, line 40)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(write: Write, code: str, problem: str) -> None:
    """It names the setting, the registry and the cure."""
    name = write(code)

    with pytest.raises(RegistryError) as caught:
        load_registry(name)

    text = str(caught.value)
    assert text.startswith("WORKER_REGISTRY: theirs:REGISTRY: ")
    assert problem in text
    assert "\n" not in text
    assert "s3cret" not in text


def test_annotations_may_name_what_is_defined_later(write: Write) -> None:
    """They are known when all modules are imported: commands see the field's true type, as jobs do."""
    registry = load_registry(write("REGISTRY = late('Later', 'Later')\nclass Later(Result): ...\n"))

    assert registry["late"].payload.model_fields["one"].annotation is sys.modules["theirs"].Later


def test_the_working_folder_may_be_gone(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deploy has removed it, with what was installed before; a module that is not there is told all the same."""
    name = write("REGISTRY = Registry(job('a'))")
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert "a" in load_registry(name)
    with pytest.raises(RegistryError, match="there is no module nowhere"):
        load_registry("nowhere:REGISTRY")


def test_a_registry_is_named_once(write: Write) -> None:
    """Its jobs do not collide with themselves."""
    name = write("REGISTRY = Registry(job('a'))")

    with pytest.raises(RegistryError, match="theirs:REGISTRY: is named twice: name it once"):
        load_registry(f"{name}, {name}")


def test_a_file_is_named_as_a_module(write: Write) -> None:
    """As uvicorn says, too."""
    write("")

    with pytest.raises(RegistryError, match=r"no module theirs.py: write theirs:REGISTRY, as import does\.$"):
        load_registry("theirs.py:REGISTRY")


@pytest.mark.parametrize("name", ["nowhere:REGISTRY", "nowhere.jobs:REGISTRY"])
def test_a_module_that_is_not_there_is_to_be_installed(name: str) -> None:
    """Or found otherwise."""
    with pytest.raises(RegistryError, match="there is no module nowhere: install its project"):
        load_registry(name)


def test_two_projects_with_one_resource_are_told_apart(write: Write) -> None:
    """Each opens its own, so each has its own name; a shared one is opened once."""
    names = write(
        "from arqonce import Resource\n"
        "BANK = Resource('bank', Path)\n"
        "FIRST = Registry(job('first'), resources=[BANK])\n"
        "SECOND = Registry(job('second'), resources=[BANK])\n"
        "THIRD = Registry(job('third'), resources=[Resource('bank', schema)])\n"
    )

    shared = load_registry("theirs:FIRST,theirs:SECOND")
    with pytest.raises(RegistryError, match="theirs:THIRD: its resource bank has the name of one of theirs:FIRST"):
        load_registry("theirs:FIRST,theirs:THIRD")

    assert names
    assert [resource.name for resource in shared.resources] == ["bank"]


def test_two_projects_with_one_table_are_told_apart(write: Write) -> None:
    """The second is the one that is wrong, and it is told whose the table is."""
    write(
        'REGISTRY = Registry(schema=schema("things"))\n'
        'SECOND = Registry(schema=schema("things", name="second"))\n'
        "THIRD = Registry(schema=schema())\n"
    )

    with pytest.raises(RegistryError, match="theirs:SECOND: its table things is one of theirs:REGISTRY"):
        load_registry("theirs:REGISTRY,theirs:SECOND")
    with pytest.raises(RegistryError, match="theirs:THIRD: its schema has the name of that of theirs:REGISTRY: theirs"):
        load_registry("theirs:REGISTRY,theirs:THIRD")


@pytest.mark.parametrize("value", ["shop", "shop.jobs", "shop/jobs:REGISTRY", "shop.jobs:", ":REGISTRY", "a:B,c"])
def test_the_setting_names_modules_and_names(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Anything else is refused before anything is imported."""
    monkeypatch.setenv("WORKER_REGISTRY", value)

    with pytest.raises(SettingsError, match=r"WORKER_REGISTRY: .* is not of the form module:NAME. Set .* such as shop"):
        WorkerSettings.load()


def test_our_own_schema_is_noted_where_it_always_was() -> None:
    """Databases that exist stay migrated."""
    assert SCHEMA.version_table == "alembic_version"


@pytest.mark.parametrize("registry", ["jobs.orders:REGISTRY", "jobs:ORDERS"])
def test_a_module_that_an_installed_one_hides_is_told(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project beside ours may have a module ``jobs`` of its own."""
    (tmp_path / "jobs").mkdir()
    monkeypatch.chdir(tmp_path)

    with pytest.raises(RegistryError, match=rf"which hides {tmp_path}/jobs: give this another name"):
        load_registry(registry)
