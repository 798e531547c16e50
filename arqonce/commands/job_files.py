"""Renders the files of a new job: payload, handler, registry line, test and, with a table, model and migration.

Owns their text, and writes nothing. The code passes every check as generated, and is meant to be changed.
"""

import builtins
import itertools
import keyword
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from arqonce.arq.registry_functions import REFUSE
from arqonce.commands.python_source import function_line, top_level_names, with_argument, with_code, with_import
from arqonce.database.schema import Schema, revisions
from arqonce.spec import Registry
from arqonce.usage import UsageError

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

_LONGEST_NAME = 40
"""Longest name of a job or a table, in characters: class names and lines of code contain it."""

_OF_PYTHON = frozenset([*keyword.kwlist, *dir(builtins)])
"""A handler that is called ``print`` would hide the function wherever it is imported."""

_USED = frozenset(
    f"{REFUSE} async_session insert_user job_failed_error jane payload pytest result row session stored user "
    "user_by_id".split()
)
"""Names that arq's functions have, or that the generated files use."""


class NewJobError(UsageError):
    """A job of this name cannot be added. The text says why; nothing was written."""


@dataclass(frozen=True)
class NewJob:
    """The job to add."""

    root: Path
    registry: Registry
    name: str
    table: str | None = None

    @property
    def payload(self) -> str:
        """Name of the payload's class."""
        return _camel_case(self.name)

    @property
    def answer(self) -> str:
        """Name of the result's class."""
        return f"{self.payload}Result"

    @property
    def row(self) -> str:
        """Name of the table's class."""
        return _camel_case(self.table or "")

    @property
    def handler_file(self) -> Path:
        """The handler's file."""
        return self.root / "jobs" / f"{self.name}.py"

    @property
    def test_file(self) -> Path:
        """The test's file."""
        return self.root / "tests" / "jobs" / f"test_{self.name}.py"

    @property
    def revision(self) -> str:
        """Number of the table's migration."""
        return f"{int(revisions(self._schema)[-1]) + 1:04}"

    @property
    def _schema(self) -> Schema:
        return self.registry.schemas[0]

    def files(self) -> dict[Path, str]:
        """Return the text of all new and changed files.

        Raises:
            NewJobError: a name is invalid or taken; the text says which, and by what.
        """
        for problem in itertools.chain(self._wrong_names(), self._taken_names()):
            raise NewJobError(problem)
        payloads, registry = self.root / "jobs" / "payloads.py", self.root / "jobs" / "registry.py"
        entry = with_argument(registry.read_text(), "REGISTRY", f"JobSpec({self.payload}, {self.name})")
        entry = with_import(entry, "jobs.payloads", self.payload)
        files = {
            payloads: with_code(payloads.read_text(), self._payload_code()),
            registry: with_import(entry, f"jobs.{self.name}", self.name),
            self.handler_file: self._handler_code(),
            self.test_file: self._test_code(),
        }
        return files | (self._table_files() if self.table else {})

    def _wrong_names(self) -> Iterator[str]:
        for kind, name in (("job", self.name), ("table", self.table)):
            if name is None:
                continue
            if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME or name in _OF_PYTHON:
                rule = (
                    f"up to {_LONGEST_NAME} of a-z, 0-9 and single _, as in rename_user, no word or builtin of Python"
                )
                yield f"a {kind} cannot be called {name!r}: {rule}"
            if name.startswith("test"):  # its class or its handler would be collected where the test imports it
                yield f"a {kind} cannot be called {name!r}: pytest takes names that begin with test for tests"
        if self.name in _USED:
            yield f"a job cannot be called {self.name!r}: that name is used by its own files, or by the worker"

    def _taken_names(self) -> Iterator[str]:
        if self.name in self.registry:
            yield f"there is a job {self.name} already: see jobs/registry.py"
        for file in (self.handler_file, self.handler_file.with_suffix(""), self.test_file):
            if file.exists():
                yield f"{file.relative_to(self.root)} exists already: choose another name"
        yield from self._taken({self.payload, self.answer, self.name}, "jobs/payloads.py", "jobs/registry.py")
        if self.table is None:
            return
        if self.table in self._schema.metadata.tables:
            yield f"there is a table {self.table} already: see db/tables.py"
        yield from self._taken({self.row}, "db/tables.py", "jobs/payloads.py")
        if self.row in {self.payload, self.answer}:
            yield f"table and job would both have a class {self.row}: choose another name for one"

    def _taken(self, names: Iterable[str], *files: str) -> Iterator[str]:
        for file in files:
            for name in sorted(top_level_names((self.root / file).read_text()).intersection(names)):
                yield f"{file} has a {name} already: choose another name"

    def _payload_code(self) -> str:
        answered, asked = ("id: int", _NOTE) if self.table else ("user_id: int", "user_id: int")
        return _PAYLOAD.format(job=self, answered=answered, asked=asked)

    def _handler_code(self) -> str:
        head = function_line(self.name, f"session: AsyncSession, payload: {self.payload}", self.answer)
        return (_HANDLER_WITH_TABLE if self.table else _HANDLER).format(job=self, head=head)

    def _test_code(self) -> str:
        code = (_TEST_WITH_TABLE if self.table else _TEST).format(job=self)
        return with_import(code, f"jobs.{self.name}", self.name)

    def _table_files(self) -> dict[Path, str]:
        tables = self.root / "db" / "tables.py"
        migration = self.root / "db" / "migrations" / f"{self.revision}_{self.table}.py"
        title = (self.table or "").replace("_", " ").capitalize()
        text = _MIGRATION.format(job=self, before=revisions(self._schema)[-1], title=title)
        return {tables: with_code(tables.read_text(), _TABLE.format(job=self), before="SCHEMA = "), migration: text}


def _camel_case(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


_NOTE = "note: Annotated[str, Field(min_length=1, max_length=1000)]"

_PAYLOAD = '''
class {job.answer}(Result):
    """The result of ``{job.name}``."""

    {answered}


class {job.payload}(Payload[{job.answer}]):
    """Say here what the job does, and how it fails."""

    job_name: ClassVar[str] = "{job.name}"
    {asked}
'''

_HANDLER = '''"""The handler of ``{job.name}``."""

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobFailedError
from db.users import user_by_id
from jobs.payloads import {job.payload}, {job.answer}


{head}
    """Say here what the job changes. Delivered twice, it takes effect once; it never commits."""
    user = await user_by_id(session, payload.user_id)
    if user is None:
        raise JobFailedError("no user has this id", code="user_not_found")
    return {job.answer}(user_id=user.id)
'''

_HANDLER_WITH_TABLE = '''"""The handler of ``{job.name}``."""

from sqlalchemy.ext.asyncio import AsyncSession

from db.tables import {job.row}
from jobs.payloads import {job.payload}, {job.answer}


{head}
    """Say here what the job changes. Delivered twice, it takes effect once; it never commits."""
    row = {job.row}(note=payload.note)
    session.add(row)
    await session.flush()
    return {job.answer}(id=row.id)
'''

_TEST = '''"""The job ``{job.name}``."""

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobFailedError
from db.users import insert_user
from jobs.payloads import {job.payload}


async def test_it_answers_for_a_user(session: AsyncSession) -> None:
    """Say here what the job should do."""
    jane = await insert_user(session, "Jane")
    payload = {job.payload}(user_id=jane.id)

    result = await {job.name}(session, payload)

    assert result.user_id == jane.id


async def test_it_refuses_a_user_that_is_not_there(session: AsyncSession) -> None:
    """The producer can distinguish this failure from others."""
    payload = {job.payload}(user_id=-1)

    with pytest.raises(JobFailedError, match="user_not_found"):
        await {job.name}(session, payload)
'''

_TEST_WITH_TABLE = '''"""The job ``{job.name}``."""

from sqlalchemy.ext.asyncio import AsyncSession

from db.tables import {job.row}
from jobs.payloads import {job.payload}


async def test_it_stores_a_row(session: AsyncSession) -> None:
    """Say here what the job should do."""
    payload = {job.payload}(note="a note")

    result = await {job.name}(session, payload)

    stored = await session.get_one({job.row}, result.id)
    assert stored.note == "a note"
'''

_TABLE = '''
class {job.row}(Base):
    """Say here what one row is."""

    __tablename__ = "{job.table}"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    note: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
'''

_MIGRATION = '''"""{title}."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "{job.revision}"
down_revision: str | None = "{before}"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "{job.table}",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("{job.table}_pkey")),
    )


def downgrade() -> None:
    """Undo."""
    op.drop_table("{job.table}")
'''
