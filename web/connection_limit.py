"""Limits how many connections are open, to what the process has file descriptors for. Knows no HTTP."""

import sys

import structlog

from arqonce.flood import Refusals

if sys.platform != "win32":  # Windows has no such limit
    import resource

_DESCRIPTORS_EACH = 2
"""What one connection may need: its own socket, and one to Redis while its request waits there."""

_OTHER_DESCRIPTORS = 64
"""What the process needs besides: files, the event loop, sockets that are accepted only to be refused."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("web.connection_limit")


class ConnectionLimit:
    """Counts open connections. Those beyond the limit are refused; those that are open are not affected."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.open = 0
        """How many are open."""
        self.refusals = Refusals(_log)
        self.is_draining = False
        """Whether each connection is to end with its next response."""

    @property
    def is_reached(self) -> bool:
        """Whether a further one would be refused."""
        return self.open >= self._most

    def enter(self) -> bool:
        """Count one more connection; return ``False``, and count nothing, if there are too many."""
        if self.is_reached:
            self.refusals.note(limit=self._most)
            return False
        self.open += 1
        return True

    def leave(self) -> None:
        """Count one connection less."""
        self.open -= 1


def connections_that_fit(most: int, *, pool_size: int) -> int:
    """Raise the process's limit of descriptors as needed; return ``most``, or less if the hard limit is too low."""
    if sys.platform == "win32":
        return most
    others = _OTHER_DESCRIPTORS + pool_size
    needed = most * _DESCRIPTORS_EACH + others
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return most
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    fitting = max(1, min(most, (allowed - others) // _DESCRIPTORS_EACH))
    if fitting < most:
        _log.warning(
            "fewer connections than WEB_MAX_CONNECTIONS: raise the limit of open files (ulimit -n, LimitNOFILE=)",
            limit=fitting,
            open_files=allowed,
        )
    return fitting
