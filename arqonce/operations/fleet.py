"""The boards of a supervisor's processes, and the socket at which any of them answers for all.

The supervisor itself has no event loop, no thread and no connection to a server. It opens the port before it starts
processes; they inherit it, and whichever accepts a connection answers with the figures of all, which it reads from the
boards. So there is one port, whichever processes die, and one process reads the queues' figures for each scrape.
"""

import json
import os
import socket
import time
from collections.abc import Mapping
from datetime import timedelta

from arqonce.metrics import families
from arqonce.metrics.board import Board
from arqonce.metrics.store import SIZE, Samples, Store
from arqonce.operations.endpoint import listen
from arqonce.settings.operations import OperationsSettings

VARIABLE = "ARQONCE_FLEET"
"""Environment variable of a supervised process: its number, and the descriptors that it has inherited."""

_LONGEST_STEP = 10.0
"""Seconds that one look at a process adds to its silence at most: if more have passed, we were stopped ourselves."""

_FRESH = timedelta(seconds=5)
"""A process whose loop has not turned for so long takes no job."""

_OWN_LIMIT = timedelta(seconds=30)
"""The supervisor looks around at least every five seconds; if it has not for so long, it stands still."""

_STACKS_LIMIT = 2.0
"""Seconds to wait for the stacks of a process that hangs."""

_READS = 100
"""How often figures are read again because the supervisor is just taking over those of an ended process."""


class Fleet:
    """The figures of several processes, by their numbers from 1, and of their supervisor. All of them may read it."""

    def __init__(self, own: Board, boards: Mapping[int, Board]) -> None:
        """Read from these boards, of which the first is the supervisor's."""
        self._own = own
        self._boards = boards

    @property
    def numbers(self) -> list[int]:
        """The numbers of the processes."""
        return list(self._boards)

    def groups(self) -> list[tuple[Mapping[str, str], Samples]]:
        """Return all figures: counters as sums, which survive processes, and gauges of each process that runs."""
        for _ in range(_READS):
            turn = self._own.turn
            totals = self._own.samples()
            alive = {number: board.samples() for number, board in self._boards.items() if board.beat}
            if turn % 2 == 0 and self._own.turn == turn:
                break
            time.sleep(0.001)
        sums = Store()
        sums.add_all(totals)
        sums.set(families.PROCESSES, len(alive))
        gauges = [({"process": str(number)}, self._gauges(number, samples)) for number, samples in alive.items()]
        for samples in alive.values():
            sums.add_all(samples)
        return [({}, sums.samples()), *gauges]

    def _gauges(self, number: int, samples: Samples) -> Samples:
        silence = max(0.0, time.monotonic() - self._boards[number].beat)
        gauges = {key: numbers for key, numbers in samples.items() if families.BY_NAME[key[0]].kind == "gauge"}
        return gauges | {(families.SILENCE.name, ()): [silence]}

    def failed(self) -> list[str]:
        """Return why no process takes jobs: the checks of each that do not hold. Empty if one takes jobs."""
        found = []
        for number, board in self._boards.items():
            failed = _failed(board)
            if not failed:
                return []
            found += [f"process {number}: {name}" for name in failed]
        return found

    @property
    def is_looked_after(self) -> bool:
        """Whether the supervisor has looked around lately."""
        return time.monotonic() - self._own.beat < _OWN_LIMIT.total_seconds()

    def close(self) -> None:
        """Free the boards."""
        for board in (self._own, *self._boards.values()):
            board.close()


def _failed(board: Board) -> list[str]:
    if not board.beat:
        return ["started"]
    if time.monotonic() - board.beat > _FRESH.total_seconds():
        return ["event loop"]
    checks = [(labels, numbers) for (name, labels), numbers in board.samples().items() if name == families.READY.name]
    return [name for (name,), (holds,) in checks if not holds] if checks else ["started"]


class Watch(Fleet):
    """A fleet as its supervisor sees it."""

    def __init__(self, count: int, settings: OperationsSettings | None) -> None:
        """Make the boards, and open the port if there is to be one.

        Raises:
            ListenError: the port is in use, or the address does not belong to this host.
        """
        # A descriptor: as an object it would be closed in a fork that lets go of this one.
        self._listener = None if settings is None or settings.port is None else listen(settings).detach()
        super().__init__(Board.make(), {number: Board.make() for number in range(1, count + 1)})
        self._store = Store(self._own.memory)
        for reason in ("exit", "signal", "hung"):
            self._store.place(families.RESTARTS, reason)
        self._silences: dict[int, tuple[float, float]] = {}
        self._hung: set[int] = set()
        self._looked = time.monotonic()
        self._store.beat(self._looked)

    def variables(self, number: int) -> dict[str, str]:
        """Return the environment variables of a process that is about to start."""
        self._silences.pop(number, None)
        found = {"number": number, "listener": self._listener, "own": self._own.descriptor}
        return {VARIABLE: json.dumps(found | {"boards": [board.descriptor for board in self._boards.values()]})}

    def end(self, number: int) -> None:
        """Note that a process has ended: what it has counted is kept, and its board is free."""
        self._store.turn()
        self._store.add_all(self._boards[number].samples())
        self._boards[number].clear()
        self._store.turn()

    def restart(self, number: int, code: int) -> None:
        """Note that a process that has ended with this code will be started again."""
        reason = "hung" if number in self._hung else "signal" if code < 0 else "exit"
        self._hung.discard(number)
        self._store.add(self._store.place(families.RESTARTS, reason))

    def look(self) -> None:
        """Note that the supervisor looks around, and for how long each process has been silent."""
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, _LONGEST_STEP), now
        self._store.beat(now)
        for number, board in self._boards.items():
            beat = board.beat
            known, silent = self._silences.get(number, (0.0, 0.0))
            self._silences[number] = (beat, silent + passed if beat and beat == known else 0.0)

    def silence(self, number: int) -> float:
        """Return for how many seconds the loop of a process has not turned, as far as we looked; 0 until it does."""
        return self._silences.get(number, (0.0, 0.0))[1]

    def note_hung(self, number: int) -> list[str]:
        """Note that a process is about to be killed because it hangs; return its stacks, which were just asked for."""
        self._hung.add(number)
        self._silences.pop(number, None)
        return self._boards[number].stacks(_STACKS_LIMIT)

    def close(self) -> None:
        """Free the boards, and close the port."""
        self._store.close()
        super().close()
        if self._listener is not None:
            os.close(self._listener)


class Member(Fleet):
    """A fleet as one of its processes sees it."""

    def __init__(self, number: int, own: Board, boards: Mapping[int, Board], listener: socket.socket | None) -> None:
        """Be the process of this number."""
        super().__init__(own, boards)
        self.own = boards[number]
        """The process's own board."""
        self.listener = listener

    @classmethod
    def inherited(cls) -> "Member | None":
        """Return the fleet of this process, if a supervisor has started it. What it starts itself inherits nothing."""
        try:
            found = json.loads(os.environ.pop(VARIABLE, ""))
            descriptors = [found["own"], *found["boards"]]
            if any(os.fstat(descriptor).st_size < SIZE for descriptor in descriptors):
                return None  # something else, which a job's own process has opened
            own, *boards = map(Board, descriptors)
            listener = None if found["listener"] is None else socket.socket(fileno=found["listener"])
            for descriptor in [*descriptors, *([] if listener is None else [listener.fileno()])]:
                os.set_inheritable(descriptor, False)  # noqa: FBT003 - its own signature
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return cls(found["number"], own, dict(enumerate(boards, 1)), listener)
