"""The queues that a worker serves, and which share of its claims each gets. Knows no server.

Written ``high,arq:queue,low``: in this order. Or with weights: ``high=5,arq:queue=3,low=1``.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from arqonce.wire.bounds import require_queue

EVERY = 16
"""Without weights, one in so many places of a worker's claims belongs to a lower queue, each of these in turn."""

_MOST_QUEUES = 16
"""A claim looks at each of them."""

_MOST_WEIGHT = 100

_NO_NAME = "is not a queue's name: write one name, or several as in high,arq:queue,low or high=5,arq:queue=3,low=1"


@dataclass(frozen=True)
class ServedQueues:
    """Names of queues, the most urgent first.

    **In order**, without weights: a claim takes the due jobs of the first queue, then those of the second, and so on.
    So that none starves, every 16th place of a worker's claims belongs to a lower queue, each of these in turn. While
    one of ``n`` queues has jobs due, a worker that claims ``16 * (n - 1)`` jobs in a row has taken one of them.

    **By weights**: while all have jobs due, each gets its share of the claims. In as many places in a row as the sum
    of all weights, each queue has exactly its weight.

    A place whose queue has no job due is any other queue's, in order: no place stays empty.
    """

    names: tuple[str, ...]

    weights: tuple[int, ...] | None = None
    """One for each name; ``None``: in order."""

    @classmethod
    def parse(cls, text: str) -> "ServedQueues":
        """Read what WORKER_QUEUE says. A text without a comma and ``=`` is one queue's name as it is.

        Raises:
            ValueError: it is invalid; the text says why.
        """
        if not text:
            raise ValueError("is empty: name a queue")
        if "," not in text and "=" not in text:
            return cls((require_queue(text),))
        items = [item.strip() for item in text.split(",")]
        parts = [item.rpartition("=") if "=" in item else (item, "", "") for item in items]
        names = tuple(name.strip() for name, _, _ in parts)
        _require_names(names)
        signs = {sign for _, sign, _ in parts}
        if signs == {""}:
            return cls(names)
        if len(names) == 1:
            raise ValueError(f"gives the only queue a weight, and the name of a queue has no '=': write {names[0]}")
        if len(signs) > 1:
            raise ValueError("gives some queues a weight and others none: give each one a weight, or none")
        return cls(names, tuple(_weight(name, text) for name, (_, _, text) in zip(names, parts, strict=True)))

    def __str__(self) -> str:
        """Return it as it is written."""
        if self.weights is None:
            return ",".join(self.names)
        return ",".join(f"{name}={weight}" for name, weight in zip(self.names, self.weights, strict=True))

    def default(self, preferred: str) -> str:
        """Return where this worker's project enqueues if nobody says where: ``preferred`` if served, else the first."""
        return preferred if preferred in self.names else self.names[0]

    @cached_property
    def places(self) -> Sequence[int | None]:
        """The queues to which successive places of claims belong, by number; ``None``: to all, in order. Repeats."""
        if self.weights is None:
            lower = range(len(self.names) - 1, 0, -1)
            return [place for number in lower for place in (*itertools.repeat(None, EVERY - 1), number)]
        return list(_dealt(self.weights))


def _require_names(names: Sequence[str]) -> None:
    if not all(names):
        raise ValueError(_NO_NAME)
    for name in names:
        require_queue(name)
    if any("=" in name for name in names):
        raise ValueError("has a name with '=', which separates a name from its weight")
    if twice := next((name for name, count in Counter(names).items() if count > 1), None):
        raise ValueError(f"names {twice} twice")
    if len(names) > _MOST_QUEUES:
        raise ValueError(f"names {len(names)} queues: a worker serves {_MOST_QUEUES} at most")


def _weight(name: str, text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MOST_WEIGHT):
        raise ValueError(f"gives {name} a weight that is none: it is a whole number from 1 to {_MOST_WEIGHT}")
    return int(text)


def _dealt(weights: Sequence[int]) -> Sequence[int]:
    """Deal as many places as the sum of the weights, those of each queue far apart (nginx's smooth round robin)."""
    total, owed, dealt = sum(weights), [0] * len(weights), []
    for _ in range(total):
        owed = [places + weight for places, weight in zip(owed, weights, strict=True)]
        best = owed.index(max(owed))
        owed[best] -= total
        dealt.append(best)
    return dealt


class Turns:
    """Deals the places of one worker's claims to its queues. What it deals is gone, used or not."""

    def __init__(self, queues: ServedQueues) -> None:
        """Begin with the first place."""
        self._places = queues.places
        self._count = len(queues.names)
        self._at = 0

    def deal(self, room: int) -> Sequence[int]:
        """Return how many of the next ``room`` places belong to each queue; what is left belongs to all, in order."""
        if not self._places:
            return [0] * self._count
        rounds, rest = divmod(room, len(self._places))
        found = Counter(itertools.islice(itertools.cycle(self._places), self._at, self._at + rest))
        if rounds:
            found += Counter({place: rounds * count for place, count in Counter(self._places).items()})
        self._at = (self._at + rest) % len(self._places)
        return [found[number] for number in range(self._count)]
