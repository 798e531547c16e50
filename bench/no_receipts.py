"""Our worker without receipts, to measure what they cost. The one place that knows which function to leave out."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from sqlalchemy.ext.asyncio import AsyncSession

from db.receipts import Receipt


@contextmanager
def without_receipts() -> Iterator[None]:
    """Leave the receipt out of each job's transaction, within this process."""

    async def no_receipt(session: AsyncSession, receipt: Receipt) -> Receipt:
        await session.flush()
        return receipt

    with patch("worker.dispatch.insert_receipt", no_receipt):
        yield
