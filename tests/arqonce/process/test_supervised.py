"""Orders to stop over a socket, and signals beside them. No server is needed."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from signal import SIGHUP, SIGINT, SIGQUIT, SIGTERM, Signals

import pytest

from arqonce.process.ending import Orders
from arqonce.process.supervised import order_to_stop, take_orders, tell_ready, was_ready

PROGRAM = """
import asyncio
from datetime import timedelta
from arqonce.process.ending import Ending

async def main():
    ending = Ending(timedelta(seconds=60), pipe=0)
    ending.begin()
    ending.obey(lambda number: print(number.name, flush=True))
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""

FORKS = """
import asyncio
import os
import time
from datetime import timedelta
from signal import SIGTERM
from arqonce.process.ending import Ending

async def main():
    ending = Ending(timedelta(seconds=60))
    ending.begin()
    ending.obey(lambda number: print(number.name))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"ready")
        time.sleep(0.2)
        os._exit(0)
    os.read(reader, 5)
    os.kill(child, SIGTERM)
    os.waitpid(child, 0)
    await asyncio.sleep(0.1)
    print("the end")

asyncio.run(main())
"""


@pytest.fixture
def listener() -> Iterator[tuple["subprocess.Popen[str]", socket.socket]]:
    """Start a process that says which stops it obeys."""
    ours, its_end = socket.socketpair()
    with (
        ours,
        its_end,
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=its_end.fileno(), stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        its_end.close()
        yield process, ours
        process.kill()


@pytest.mark.usefixtures("starts_processes")
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
        ([SIGHUP, SIGHUP, "order"], [SIGHUP]),
        ([SIGTERM, SIGHUP, SIGQUIT], [SIGTERM, SIGQUIT]),
        ([SIGHUP, SIGTERM], [SIGHUP, SIGTERM]),
    ],
    ids=str,
)
def test_orders_and_signals_count_apart(
    listener: tuple["subprocess.Popen[str]", socket.socket], events: list[Signals | str], stops: list[Signals]
) -> None:
    """The first of either kind is the first stop; only a second of its own kind is the second; a SIGHUP never is."""
    process, line = listener
    for event in events:
        if isinstance(event, Signals):
            process.send_signal(event)
        elif event == "order":
            order_to_stop(line, SIGTERM)
        else:
            line.close()
        time.sleep(0.05)  # an event that changes nothing leaves no state to wait for
    process.kill()

    assert process.communicate()[0].split() == [stop.name for stop in stops]


@pytest.mark.usefixtures("starts_processes")
def test_a_signal_to_a_process_that_a_job_has_forked_is_no_order() -> None:
    """A job that terminates its own subprocess, or a signal to all processes of a pool, does not stop the worker."""
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True, timeout=30)

    assert done.stdout.split("\n") == ["the end", ""]


def test_one_order_by_several_signals_at_once_is_one() -> None:
    """``timeout`` signals the process and then its group; systemd and shells send SIGHUP beside another signal."""
    orders = [Orders() for _ in range(4)]
    pairs = [(SIGTERM, SIGTERM), (SIGTERM, SIGHUP), (SIGHUP, SIGTERM), (SIGHUP, SIGHUP)]

    heard = [[one.hear("signals", number) for number in pair] for one, pair in zip(orders, pairs, strict=True)]

    assert heard == [[True, False]] * 4


def test_a_process_says_whether_it_was_ever_ready() -> None:
    """Also when it has ended since."""
    lines = [socket.socketpair() for _ in range(2)]
    tell_ready(lines[0][1].fileno())
    for ours, its_end in lines:
        its_end.close()
        order_to_stop(ours, SIGTERM)

    assert [was_ready(ours) for ours, _ in lines] == [True, False]
    for ours, _ in lines:
        ours.close()


def test_what_a_job_starts_cannot_read_the_orders() -> None:
    """They come by standard input, which children inherit, and ffmpeg reads its own."""
    ours, its_end = socket.socketpair()
    before = os.dup(0)
    with ours, its_end:
        os.dup2(its_end.fileno(), 0)
        try:
            orders = take_orders()
            os.set_blocking(orders, False)
            order_to_stop(ours, SIGTERM)
            of_child = os.read(0, 1)
        finally:
            os.dup2(before, 0)
            os.close(before)
        heard, is_inherited = os.read(orders, 1), os.get_inheritable(orders)
        os.close(orders)

    assert (of_child, heard, is_inherited) == (b"", bytes([SIGTERM]), False)
