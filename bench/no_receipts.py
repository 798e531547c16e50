"""Our worker without receipts, to measure what they cost. The one place that knows which function to leave out."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from sqlalchemy.ext.asyncio import AsyncSession


@contextmanager
def without_receipts() -> Iterator[None]:
    """Leave the receipts out of the jobs' transactions, within this process."""

    async def no_receipts(session: AsyncSession, *_: object) -> None:
        await session.flush()

    with (
        patch("arqonce.execution.attempt.insert_receipts", no_receipts),
        patch("arqonce.execution.batch.insert_receipts", no_receipts),
    ):
        yield
