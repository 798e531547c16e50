"""How an engine works: its options, its phases, and what else is due in its main loop."""

import math
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from typing import Protocol

from arqonce.rest import Rest


class Phase(IntEnum):
    """What an engine is about. It only ever goes on to a later phase."""

    WORKING = 1
    STOPPING = 2
    """Nothing is claimed; running jobs may end."""
    ENDING = 3
    """The main loop ends, and running jobs are cancelled."""


class Chores(Protocol):
    """What else is due from time to time in the main loop."""

    async def do(self) -> None:
        """Do what is due."""
        ...

    def due_in(self) -> float:
        """Return in how many seconds something is due."""
        ...

    def hurry(self) -> None:
        """Do everything the next time: Redis was gone."""
        ...


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an engine works."""

    slots: int
    """How many runs there may be at once."""

    aside: int = 0
    """How many more there may be that only wait for others (``Runs.aside``)."""

    lease: timedelta
    """How long a claimed job stays locked without renewal."""

    poll: timedelta
    """How often the queue is looked at where Redis cannot wake us, and requests to abort while jobs run."""

    burst: bool = False
    """End when the queue is empty."""

    most: float = math.inf
    """Most jobs that a burst starts."""

    aborts: bool = True
    """Whether jobs can be aborted."""

    rest: Rest = field(default_factory=Rest)
    """Which the engine begins and ends."""
