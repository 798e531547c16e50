"""The same tests for every way in which asynchronous tests can be run; the file is copied under another name."""

from contextlib import suppress

from notes import JOBS, Note, WriteNote, note_down, write_note
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobClient
from arqonce.testing.enqueued import EnqueuedJobs
from arqonce.testing.run_job import RunJob
from jobs import CreateUser


async def test_a_handler(session: AsyncSession) -> None:
    """In one line."""
    assert (await write_note(session, WriteNote(words="hello"))).words == "hello"


async def test_a_handler_again(session: AsyncSession) -> None:
    """Nothing is left of the first."""
    assert await session.scalar(text("SELECT count(*) FROM notes")) == 0


async def test_with_a_fixture_of_ours(note: Note, session: AsyncSession) -> None:
    """An asynchronous one, which has used the session."""
    assert await session.scalar(text("SELECT words FROM notes WHERE id = :id"), {"id": note.id}) == "given"


async def test_a_job(run_job: RunJob) -> None:
    """By its registry entry."""
    assert "write_note" in JOBS
    assert (await run_job(WriteNote(words="hello"))).words == "hello"
    assert (await run_job(CreateUser(name="Jane"))).name == "Jane"


async def test_a_service(enqueued: EnqueuedJobs, run_job: RunJob, session: AsyncSession) -> None:
    """No Redis is there."""
    assert run_job is not None
    async with JobClient("redis://127.0.0.1:1") as client:
        await note_down(client, "hello")

    enqueued.assert_enqueued(WriteNote, words="hello")
    await enqueued.drain()
    assert await session.scalar(text("SELECT words FROM notes")) == "hello"


async def test_code_that_commits(jobs_sessions: async_sessionmaker[AsyncSession], session: AsyncSession) -> None:
    """What it commits is seen, what it rolls back is gone."""
    async with jobs_sessions.begin() as other:
        await write_note(other, WriteNote(words="kept"))
    with suppress(ZeroDivisionError):
        async with jobs_sessions.begin() as other:
            await write_note(other, WriteNote(words="given up"))
            raise ZeroDivisionError

    assert list(await session.scalars(text("SELECT words FROM notes"))) == ["kept"]
