"""Disables receipts in our worker, to measure their cost. The only place that knows which functions to patch."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from sqlalchemy.ext.asyncio import AsyncSession


@contextmanager
def without_receipts() -> Iterator[None]:
    """Write no receipts in this process within the context."""

    async def no_receipts(session: AsyncSession, *_: object, **__: object) -> None:
        await session.flush()

    with (
        patch("arqonce.execution.attempt.insert_receipts", no_receipts),
        patch("arqonce.execution.batch.insert_receipts", no_receipts),
    ):
        yield
