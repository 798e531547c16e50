"""An event loop whose clock jumps to the next timer as soon as nothing else is to be done: a minute takes no time."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec

P = ParamSpec("P")


class _Jumping(selectors.SelectSelector):
    """Waits for nothing outside of the process: moves the clock instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let the time pass."""
        assert timeout is not None, "nothing will ever happen: all tasks wait for each other"
        self.now += max(0.0, timeout)
        return super().select(0)


class ClockLoop(asyncio.SelectorEventLoop):
    """The loop."""

    def __init__(self) -> None:
        """Begin at 0 seconds."""
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the time by the test's clock."""
        return self._jumping.now


def on_its_own_clock(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run the test in such a loop."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=ClockLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


async def until(holds: Callable[[], bool], *, seconds: float = 120) -> None:
    """Wait until it holds, at most for so long by the test's clock."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)
