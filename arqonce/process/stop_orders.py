"""How a supervisor and its processes speak: over a socket that is their standard input. Knows no worker.

Not by signals, because those may come from elsewhere too: Ctrl-C reaches every process of the terminal, and systemd
signals every process of a unit. Passed on by the supervisor as well, that would be two, and a second one means "at
once". So orders and signals are counted apart, and the larger count is obeyed (``ending``). The end of the
connection, which comes even if the supervisor is killed, is an order as well.

The other way a process says that it is ready: what ends before is to blame for its end, its settings or its command
line; what ends later may have been ended by a job, whatever its exit code.
"""

import os
import socket
from contextlib import suppress
from signal import Signals

_READY = b"r"


def order_to_stop(process: socket.socket, number: Signals) -> None:
    """Do to the process at the other end as this signal would do; nothing if it has ended."""
    with suppress(OSError):
        process.send(bytes([number]))


def tell_ready(supervisor: int) -> None:
    """Say to the supervisor behind this descriptor that this process is ready."""
    with suppress(OSError):  # it was killed, or is none of ours
        os.write(supervisor, _READY)


def was_ready(process: socket.socket) -> bool:
    """Say whether the process at the other end has ever been ready."""
    for _ in range(2):  # the first may report an order that it had not read
        with suppress(OSError):
            return _READY in process.recv(64, socket.MSG_DONTWAIT | socket.MSG_PEEK)
    return False
