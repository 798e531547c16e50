"""An error is told with the place that a developer looks for."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.causes import causes
from arqonce.execution.diagnosis import diagnose
from arqonce.execution.places import Place, handlers_place
from arqonce.failures import InvalidPayloadError, JobFailedError
from db.tables import User
from jobs import EmailTakenError
from jobs.payloads import FindUser
from jobs.users import find_user

ROOT = Path(__file__).parents[3]
INSTALLED = "/usr/lib/python3/site-packages"
ORM = f"{INSTALLED}/sqlalchemy/orm/session.py"


async def test_the_handlers_own_line_is_told_however_deep_a_library_fails(session: AsyncSession) -> None:
    """SQLAlchemy alone fills all that is shown."""

    async def handler() -> None:
        session.add_all([User(name="Jane", email="a@b.c"), User(name="Joe", email="a@b.c")])
        await session.flush()

    with pytest.raises(IntegrityError) as caught:
        await handler()

    told = diagnose(caught.value)
    line = handler.__code__.co_firstlineno + 2
    assert f" at execution/test_diagnosis.py:{line} handler > " in told
    assert told.split(" <- ")[0].count(" > ") == 3
    assert "a@b.c" not in told


async def test_our_handlers_are_told_as_anybodys(session: AsyncSession) -> None:
    """By the innermost line that is the project's own: here that of a query."""
    await session.connection()
    await (await session.connection()).exec_driver_sql("ALTER TABLE users RENAME COLUMN name TO nickname")

    with pytest.raises(ProgrammingError) as caught:
        await find_user(session, FindUser(name="Jane"))

    assert "db/users.py" in diagnose(caught.value).split(" <- ")[0]


async def test_what_failed_in_a_task_group_is_told() -> None:
    """The group itself says only how many they were. Equal ones are told once."""

    async def fail(error: Exception) -> None:
        raise error from KeyError("a@b.c")

    async def handler() -> None:
        async with asyncio.TaskGroup() as group:
            for error in (ValueError("a@b.c"), ConnectionResetError(), ValueError("a@b.c")):
                group.create_task(fail(error))

    with pytest.raises(ExceptionGroup) as caught:
        await handler()

    kinds = [part.split(" at ")[0] for part in diagnose(caught.value).split(" <- ")]
    assert kinds == ["ExceptionGroup", "ValueError", "KeyError", "ConnectionResetError"]


def test_of_a_group_of_any_size_so_many_are_looked_at() -> None:
    """A job of 100,000 items that all fail held the loop up for two seconds."""
    group = ExceptionGroup("items", [ValueError(number) for number in range(5000)])

    assert len(list(causes(ExceptionGroup("all", [group, group])))) == 1000


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (EmailTakenError("jane@example.org is taken"), "EmailTakenError (email_taken)"),
        (JobFailedError("jane@example.org is blocked"), "JobFailedError (job_failed)"),
        (JobFailedError("jane@example.org is blocked", code="blocked"), "JobFailedError (blocked)"),
        (InvalidPayloadError("name: Field required"), "InvalidPayloadError (invalid_payload: name: Field required)"),
    ],
)
def test_the_text_of_a_failure_that_a_handler_chose_is_not_told(failure: JobFailedError, told: str) -> None:
    """It may have anything in it; also as the cause of another error."""
    error = RuntimeError("of jane@example.org")
    error.__cause__ = failure

    assert diagnose(error) == f"RuntimeError <- {told}"


def _places(*files: str) -> list[Place]:
    return [Place(file, number, "f") for number, file in enumerate(files, start=1)]


OURS = [str(ROOT / "arqonce" / "execution" / "attempt.py"), str(ROOT / "arqonce" / "database" / "transactions.py")]
ENTRY = [str(ROOT / "worker" / "__main__.py"), str(ROOT / "arqonce" / "main.py")]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([*OURS, "/app/shop/jobs.py", "/app/shop/prices.py", f"{INSTALLED}/httpx/client.py", ORM], 4),
        ([OURS[0], f"{INSTALLED}/shop/jobs.py", f"{INSTALLED}/httpx/client.py", ORM], 2),
        ([OURS[0], "/app/shop/jobs.py", str(ROOT / "arqonce" / "outbox.py"), ORM], 2),
        ([*OURS, ORM], None),
        ([*ENTRY, *OURS, ORM], None),
        ([OURS[0], ORM, "<frozen importlib._bootstrap>"], None),
    ],
    ids=["a project's", "an installed project's", "what calls us", "ours", "the command's", "a library's"],
)
def test_the_innermost_line_of_a_handler(files: list[str], expected: int | None) -> None:
    """Neither a library's nor the worker's."""
    found = handlers_place(_places(*files))

    assert (None if found is None else found.line) == expected
