"""Orders to stop over a pipe, and signals beside them. No server is needed."""

import asyncio
import os
from collections.abc import Iterator
from signal import SIGINT, SIGTERM, Signals

import pytest

from worker.orders import obeying


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Open a pipe."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


@pytest.mark.parametrize(
    ("events", "stops"),
    [
        ([SIGTERM, "order"], [SIGTERM]),
        (["order", SIGINT], [SIGTERM]),
        (["order", "end"], [SIGTERM]),
        (["end"], [SIGTERM]),
        ([SIGINT, "end"], [SIGINT]),
        (["order", "order"], [SIGTERM, SIGTERM]),
        ([SIGINT, SIGINT, "order", "order"], [SIGINT, SIGINT]),
        (["order", SIGINT, "order"], [SIGTERM, SIGTERM]),
    ],
    ids=str,
)
async def test_orders_and_signals_count_apart(
    pipe: tuple[int, int], events: list[Signals | str], stops: list[Signals]
) -> None:
    """The first of either kind is the first stop; only a second of its own kind is the second."""
    loop, obeyed = asyncio.get_running_loop(), list[Signals]()
    with obeying(pipe[0], obeyed.append):
        for event in events:
            if isinstance(event, Signals):
                os.kill(os.getpid(), event)
            elif event == "order":
                os.write(pipe[1], bytes([SIGTERM]))
            else:
                os.close(pipe[1])
            await asyncio.sleep(0.05)  # an event that changes nothing leaves no state to wait for
    for number in (SIGTERM, SIGINT):
        loop.remove_signal_handler(number)
    if "end" not in events:
        os.close(pipe[1])

    assert obeyed == stops
