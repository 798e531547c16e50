"""How a supervisor tells its processes to stop: over a pipe that is their standard input. Knows no worker.

Not by signals, because those may come from elsewhere too: Ctrl-C reaches every process of the terminal, and systemd
signals every process of a unit. Passed on by the supervisor as well, that would be two, and a second one means "at
once". So orders and signals are counted apart, and the larger count is obeyed. The end of the pipe, which comes even if
the supervisor is killed, is an order as well.
"""

import asyncio
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from signal import SIGINT, SIGTERM, Signals


def order_to_stop(process: "subprocess.Popen[bytes]", number: Signals) -> None:
    """Do to the process as this signal would do; nothing if it has ended. Its standard input must be a pipe."""
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.write(bytes([number]))


@contextmanager
def obeying(pipe: int, stop: Callable[[Signals], None]) -> Iterator[None]:
    """Call ``stop`` at the first order or signal, and once more at the second. Replaces the loop's signal handlers."""
    loop = asyncio.get_running_loop()
    counts: Counter[str] = Counter()
    obeyed = 0

    def count(source: str, number: int) -> None:
        nonlocal obeyed
        counts[source] += 1
        if counts[source] > obeyed:
            obeyed += 1
            stop(Signals(number))

    def read() -> None:
        orders = os.read(pipe, 64)
        for number in orders:
            count("orders", number)
        if not orders:
            loop.remove_reader(pipe)
            if not counts["orders"]:
                count("orders", SIGTERM)

    for number in (SIGTERM, SIGINT):
        loop.add_signal_handler(number, count, "signals", number)
    loop.add_reader(pipe, read)
    try:
        yield
    finally:
        loop.remove_reader(pipe)
