"""A project that has a table and a job of its own, and a service that enqueues."""

from typing import ClassVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobClient
from arqonce.payloads import Payload, Result
from arqonce.spec import JobSpec, Registry
from jobs.registry import REGISTRY


class Note(Result):
    """A stored note."""

    id: int
    words: str


class WriteNote(Payload[Note]):
    """Store a note."""

    job_name: ClassVar[str] = "write_note"
    words: str


async def write_note(session: AsyncSession, payload: WriteNote) -> Note:
    """Store the note."""
    insert = text("INSERT INTO notes (words) VALUES (:words) RETURNING id, words")
    row = (await session.execute(insert, {"words": payload.words})).one()
    return Note(id=row.id, words=row.words)


async def write_and_commit(session: AsyncSession, payload: WriteNote) -> Note:
    """Do what no handler may do."""
    note = await write_note(session, payload)
    await session.commit()
    return note


async def note_down(client: JobClient, words: str) -> None:
    """Serve: have a note written."""
    await client.enqueue(WriteNote(words=words))


JOBS = Registry(*REGISTRY, JobSpec(WriteNote, write_note))
