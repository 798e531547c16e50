"""Reports to systemd how this process is, for units with ``Type=notify`` (sd_notify(3)). Does nothing elsewhere.

A ping for the watchdog comes from the event loop: a loop that hangs sends none, and systemd restarts the unit. A loop
that waits for a server that is away turns, and is well: a restart would not bring the server back.
"""

import os
import socket
from contextlib import suppress
from datetime import timedelta

_MICROSECOND = timedelta(microseconds=1)

_REPORT_EVERY = timedelta(seconds=5)
"""How often the status is sent at most; the watchdog may ask for more."""

_LATE = timedelta(seconds=5)
"""How much longer than our own limit systemd is to wait for the end: the limit is ours to keep."""

_LONGEST_STATUS = 200


class Notifier:
    """The socket of the service manager, if there is one. A process has one, and its children none."""

    def __init__(self, address: str | None = None, watchdog: timedelta | None = None) -> None:
        """Send to this address; ``watchdog`` is the interval within which systemd expects a ping."""
        self._address = address
        self.watchdog = watchdog

    @classmethod
    def take(cls) -> "Notifier":
        """Take the socket's address out of the environment, so that what this process starts cannot report for it."""
        address = os.environ.pop("NOTIFY_SOCKET", None)
        interval, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        is_ours = interval.isdigit() and int(interval) > 0 and pid in {"", str(os.getpid())}
        return cls(address, int(interval) * _MICROSECOND if is_ours else None)

    @property
    def every(self) -> timedelta | None:
        """How often ``alive`` is to be called: twice within the watchdog's interval, as systemd recommends."""
        if not self._address:
            return None
        return _REPORT_EVERY if self.watchdog is None else min(_REPORT_EVERY, self.watchdog / 2)

    def ready(self) -> None:
        """Report that the start is complete."""
        self._send("READY=1")

    def alive(self, status: str) -> None:
        """Report that the process works, and at what: one line, which ``systemctl status`` shows."""
        line = " ".join(status.split())[:_LONGEST_STATUS]
        self._send(f"STATUS={line}", *(["WATCHDOG=1"] if self.watchdog else []))

    def stopping(self, limit: timedelta) -> None:
        """Report that the process ends, within ``limit``: systemd then waits for so long, whatever the unit says."""
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={(limit + _LATE) // _MICROSECOND}", "STATUS=ending")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(0)  # a manager that does not read must not stop the loop
            sender.sendto("\n".join(lines).encode(), address)
