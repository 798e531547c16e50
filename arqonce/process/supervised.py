"""What passes between a supervisor and its processes, through a socket. What a signal does is in ``ending``.

Not signals, because those have other sources, too: Ctrl-C reaches every process of the terminal, and systemd signals
every process of a unit. If the supervisor also passed such a signal on, a process would receive two, and a second one
means "at once". So orders and signals are counted separately, and the larger count applies (``ending``). End of file,
which also occurs if the supervisor is killed, is an order, too.

In the other direction a process reports that it is ready. If a process ends before that, its settings or its command
line are the cause. If it ends later, a job may have ended it, whatever its exit code. Knows no worker.
"""

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from signal import Signals

_READY = b"r"


@dataclass(frozen=True, kw_only=True)
class Supervised:
    """What a process is that a supervisor has started."""

    number: int
    """From 1. All its log lines carry it."""

    orders: int
    """The file descriptor of its end of the socket."""


def take_orders() -> int:
    """Return the socket of a supervisor's orders, which is standard input, and leave /dev/null in its place.

    Else a program that a job starts would have it as its own standard input: one that reads, as ffmpeg does, would take
    the order to stop.
    """
    orders = os.dup(0)  # no child inherits it
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    return orders


def order_to_stop(process: socket.socket, number: Signals) -> None:
    """Order the process at the other end to act as on this signal; do nothing if it has ended."""
    with suppress(OSError):
        process.send(bytes([number]))


def tell_ready(supervisor: int) -> None:
    """Report to the supervisor behind this descriptor that this process is ready."""
    with suppress(OSError):  # it was killed, or it is not our supervisor
        os.write(supervisor, _READY)


def was_ready(process: socket.socket) -> bool:
    """Return whether the process at the other end has ever been ready."""
    for _ in range(2):  # the first read may fail because of an order that the process had not read
        with suppress(OSError):
            return _READY in process.recv(64, socket.MSG_DONTWAIT | socket.MSG_PEEK)
    return False
