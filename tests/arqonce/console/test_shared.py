"""What costs much is made once for all."""

import asyncio
from datetime import timedelta

from arqonce.console.shared import Shared


class _Counter:
    made = 0

    async def make(self) -> int:
        """Count."""
        await asyncio.sleep(0)
        self.made += 1
        return self.made


async def test_all_who_ask_at_once_get_the_same() -> None:
    """It is made once, and again when it is no longer fresh."""
    counter = _Counter()
    fresh, stale = Shared[int](timedelta(minutes=1)), Shared[int](timedelta(0))

    same = await asyncio.gather(*(fresh.get(counter.make) for _ in range(20)))
    each = [await stale.get(counter.make) for _ in range(3)]

    assert (same, each) == ([1] * 20, [2, 3, 4])
