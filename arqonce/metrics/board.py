"""Memory of one process that others map, too: its figures, and when its loop turned last.

A supervisor makes one for each process and clears it for each successor, so that nothing grows with processes that have
ended, and what a killed process has counted is read after its end. The memory is a file without a name. Behind it, the
stacks of a process that hangs are written.
"""

import mmap
import os
import sys
import tempfile
import time

from arqonce.metrics.store import SIZE, Samples, clear, read_beat, read_samples, read_turn

_LONGEST_STACKS = 64 * 1024


class Board:
    """The memory, as supervisor and process see it."""

    def __init__(self, descriptor: int) -> None:
        """Map the memory behind a descriptor."""
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, SIZE)
        self.memory = memoryview(self._map)

    @classmethod
    def make(cls) -> "Board":
        """Make the memory of a process; it begins empty."""
        if sys.platform == "linux":
            descriptor = os.memfd_create("arqonce-board")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        os.truncate(descriptor, SIZE)
        os.lseek(descriptor, SIZE, os.SEEK_SET)
        os.set_inheritable(descriptor, True)  # noqa: FBT003 - its only argument
        return cls(descriptor)

    @property
    def turn(self) -> int:
        """What ``Store.turn`` counts."""
        return read_turn(self.memory)

    @property
    def beat(self) -> float:
        """When the loop turned last, by ``time.monotonic``; 0 if it has not yet."""
        return read_beat(self.memory)

    def samples(self) -> Samples:
        """Return the figures."""
        return read_samples(self.memory)

    def clear(self) -> None:
        """Make room for the next process."""
        clear(self.memory)
        os.truncate(self.descriptor, SIZE)
        os.lseek(self.descriptor, SIZE, os.SEEK_SET)  # supervisor and process share the position

    def stacks(self, limit: float) -> list[str]:
        """Return the lines that ``faulthandler`` has written for the process; wait for them for so many seconds."""
        until = time.monotonic() + limit
        size = SIZE
        while time.monotonic() < until:
            before, size = size, os.fstat(self.descriptor).st_size
            if size > SIZE and size == before:
                break
            time.sleep(0.05)
        return os.pread(self.descriptor, _LONGEST_STACKS, SIZE).decode(errors="replace").splitlines()

    def close(self) -> None:
        """Free the memory."""
        self.memory.release()
        self._map.close()
        os.close(self.descriptor)
