"""Jobs that charge a card before they store it, and the bank: for real workers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import ClassVar

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobContext, JobSpec, Payload, Phases, Registry, Resource, Result
from db.users import insert_user


class BankService:
    """A bank that answers over TCP, and charges once for each key. ``hold`` keeps its answers back."""

    def __init__(self) -> None:
        """Have charged nobody."""
        self.calls: Counter[str] = Counter()
        self.charges: dict[str, str] = {}
        self.answers = asyncio.Event()
        self.answers.set()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one call: a line with a key and who is charged."""
        key, _, name = (await reader.readline()).decode().strip().partition(" ")
        if not key:  # the caller has died
            writer.close()
            return
        self.calls[key] += 1
        self.charges.setdefault(key, name)
        await self.answers.wait()
        writer.write(f"charge for {self.charges[key]}\n".encode())
        writer.close()


@asynccontextmanager
async def open_service() -> AsyncIterator[BankService]:
    """Run the bank in the test's own loop."""
    service = BankService()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    service.port = server.sockets[0].getsockname()[1]
    try:
        yield service
    finally:
        service.answers.set()
        server.close()


class Bank:
    """The bank's client."""

    async def charge(self, port: int, key: str, name: str) -> str:
        """Charge once for each key."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(f"{key} {name}\n".encode())
            return (await reader.readline()).decode().strip()
        finally:
            writer.close()


@asynccontextmanager
async def _open_bank() -> AsyncIterator[Bank]:
    yield Bank()


BANK = Resource("bank", _open_bank)


class Charged(Result):
    """What the bank said."""

    user_id: int
    charge: str


class Charge(Payload[Charged]):
    """Charge a card."""

    job_name: ClassVar[str] = "charge"
    name: str
    port: int


async def _charge(payload: Charge, job: JobContext) -> str:
    return await job[BANK].charge(payload.port, job.idempotency_key, payload.name)


async def _store(session: AsyncSession, payload: Charge, charge: str) -> Charged:
    return Charged(user_id=(await insert_user(session, payload.name)).id, charge=charge)


REGISTRY = Registry(
    JobSpec(Charge, Phases(work=_charge, store=_store, deadline=timedelta(seconds=60))), resources=[BANK]
)
NAME = f"{__name__}:REGISTRY"
