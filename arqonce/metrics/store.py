"""The figures of one process: plain numbers in one piece of memory, which another process may read meanwhile.

The memory is the process's own, or a supervisor's board (``board``). It begins with a head, then come the numbers, then
what they mean, one line of JSON for each set of labels, in the order of the numbers. A line is counted in the head only
when its numbers are there, so that a reader sees whole lines, at any time, also after SIGKILL. Nothing ever shrinks,
and nothing grows without bound: see ``MOST_SERIES``.
"""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from arqonce.metrics.families import BY_NAME, Family
from arqonce.wire.keys import FIRST_TIME_MS

MOST_SERIES = 2000
"""Most sets of labels of one metric. What comes later counts as ``<other>``: labels may be made of what people send."""

OTHER = "<other>"

_LONGEST = 100
"""Most characters of a label's value."""

_HEAD = 8
"""Numbers of the head."""

_DESCRIBED, _BEAT, _TURN = 0, 1, 2
"""Places in the head: how many bytes describe the numbers; when the process's loop turned last; and, of a supervisor's
own memory, a number that is odd while it takes over what an ended process has counted."""

_NUMBERS = 128 * 1024
_DESCRIPTION = 1024 * 1024

_BIN = 64
"""So many numbers at the end are written in place of those that have no room, and never read."""

_AT = 8 * (_HEAD + _NUMBERS)
"""Where the description begins, in bytes."""

SIZE = _AT + _DESCRIPTION
"""Bytes of the memory. Untouched pages take none."""

Labels: TypeAlias = tuple[str, ...]
Key: TypeAlias = tuple[str, Labels]
Samples: TypeAlias = dict[Key, list[float]]
"""The numbers of each metric, by its name and the values of its labels."""


class Store:
    """Counters, gauges and histograms of this process. Belongs to one thread."""

    def __init__(self, memory: memoryview | None = None) -> None:
        """Begin empty, in memory of ``SIZE`` bytes that are zero; by default in memory of our own."""
        self.memory = memoryview(bytearray(SIZE)) if memory is None else memory
        self._cells = self.memory[:_AT].cast("d")
        self._places: dict[Key, int] = {}
        self._series: Counter[str] = Counter()
        self._next = _HEAD

    def place(self, family: Family, *labels: str) -> int:
        """Return where the numbers of these labels are; they begin with 0. Keep it where it is often needed."""
        key = (family.name, labels)
        found = self._places.get(key)
        return self._make(family, labels) if found is None else found

    def _make(self, family: Family, labels: Labels) -> int:
        labels = tuple(value[:_LONGEST] for value in labels)
        key = (family.name, labels)
        if key in self._places:
            return self._places[key]
        if self._series[family.name] >= MOST_SERIES and labels != (OTHER,) * len(labels):
            return self.place(family, *(OTHER for _ in labels))
        line = json.dumps(key).encode() + b"\n"
        place, described = self._next, int(self._cells[_DESCRIBED])
        if place + family.width > _HEAD + _NUMBERS - _BIN or described + len(line) > _DESCRIPTION:
            return _HEAD + _NUMBERS - _BIN
        self.memory[_AT + described : _AT + described + len(line)] = line
        self._cells[_DESCRIBED] = described + len(line)
        self._places[key], self._next = place, place + family.width
        self._series[family.name] += 1
        return place

    def add(self, place: int, amount: float = 1) -> None:
        """Add to a counter."""
        self._cells[place] += amount

    def set(self, family: Family, value: float, *labels: str) -> None:
        """Set a gauge, or a counter that is counted elsewhere."""
        self._cells[self.place(family, *labels)] = value

    def observe(self, place: int, family: Family, value: float) -> None:
        """Add one value to a histogram."""
        buckets = family.buckets
        self._cells[place + bisect_left(buckets, value)] += 1
        self._cells[place + len(buckets) + 1] += value

    def observe_since(self, place: int, family: Family, times_ms: Sequence[float], now: float) -> None:
        """Add the seconds from each of ``times_ms``, which are ascending, until ``now``, in seconds since 1970.

        Costs hardly more for many than for few. A time after ``now``, by another clock, counts as 0 seconds.
        """
        left = len(times_ms)
        if left <= 1:
            for time_ms in times_ms:
                self.observe(place, family, max(0.0, now - time_ms / 1000))
            return
        cells, buckets, now_ms = self._cells, family.buckets, now * 1000
        passed = bisect_left(times_ms, now_ms)
        for at, bound in enumerate(buckets):
            later = bisect_left(times_ms, now_ms - bound * 1000)  # those before it lie back further
            if later < left:
                cells[place + at] += left - later
                left = later
            if not left:
                break
        cells[place + len(buckets)] += left
        cells[place + len(buckets) + 1] += max(0.0, passed * now_ms - sum(times_ms[:passed])) / 1000

    def add_all(self, samples: Samples) -> None:
        """Add counters and histograms that another process has counted; its gauges end with it."""
        for (name, labels), numbers in samples.items():
            family = BY_NAME[name]
            if family.kind != "gauge":
                place = self.place(family, *labels)
                for at, number in enumerate(numbers):
                    self._cells[place + at] += number

    def turn(self) -> None:
        """Begin, or end, what others must not read while it is half done."""
        self._cells[_TURN] += 1

    def beat(self, now: float) -> None:
        """Note that the loop turns."""
        self._cells[_BEAT] = now

    def close(self) -> None:
        """Let go of the memory, so that it can be freed."""
        self._cells.release()

    def samples(self) -> Samples:
        """Return all numbers."""
        return read_samples(self.memory)


def read_samples(memory: memoryview) -> Samples:
    """Return the numbers of a store by its memory, also while another process writes to it."""
    with memory[:_AT].cast("d") as cells:
        text = bytes(memory[_AT : _AT + int(cells[_DESCRIBED])])
        samples: Samples = {}
        place = _HEAD
        for line in text.splitlines():
            name, labels = json.loads(line)
            width = BY_NAME[name].width
            samples[name, tuple(labels)] = list(cells[place : place + width])
            place += width
        return samples


def read_beat(memory: memoryview) -> float:
    """Return when the loop of the process turned last, by ``time.monotonic``; 0 if it has not yet."""
    with memory[:_AT].cast("d") as cells:
        return cells[_BEAT]


def read_turn(memory: memoryview) -> int:
    """Return the number of the turn; an odd one is not over."""
    with memory[:_AT].cast("d") as cells:
        return int(cells[_TURN])


def clear(memory: memoryview) -> None:
    """Make it as if nobody had written to it: the next process begins with nothing."""
    with memory[:_AT].cast("d") as cells:
        described = int(cells[_DESCRIBED])
        for at in range(_HEAD):
            cells[at] = 0.0
        used = _HEAD
        for line in bytes(memory[_AT : _AT + described]).splitlines():
            used += BY_NAME[json.loads(line)[0]].width
        for at in range(_HEAD, used):
            cells[at] = 0.0


def times_of(scores: Iterable[bytes]) -> list[float]:
    """Return the scores that are times, ascending, in ms since 1970."""
    try:
        found = sorted(map(float, scores))
    except ValueError:
        return []
    if found and found[0] >= FIRST_TIME_MS and found[-1] < _LAST_TIME:
        return found
    return found[bisect_left(found, FIRST_TIME_MS) : bisect_left(found, _LAST_TIME)]


_LAST_TIME = 1e14
"""Scores from here on are no times, as those below ``FIRST_TIME_MS``."""
