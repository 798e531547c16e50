"""What WORKER_QUEUE says, and which queue each place of a claim belongs to. Needs no server."""

from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arqonce.environment import SettingsError
from arqonce.queues import EVERY, ServedQueues, Turns
from arqonce.settings.worker import WorkerSettings


@pytest.mark.parametrize(
    ("text", "names", "weights"),
    [
        ("arq:queue", ("arq:queue",), None),
        ("of our shop", ("of our shop",), None),
        ("high, arq:queue ,low", ("high", "arq:queue", "low"), None),
        ("high=5,arq:queue = 3,low=1", ("high", "arq:queue", "low"), (5, 3, 1)),
    ],
)
def test_one_name_or_several(text: str, names: tuple[str, ...], weights: tuple[int, ...] | None) -> None:
    """A single name is taken as it is, colons and spaces included."""
    assert ServedQueues.parse(text) == ServedQueues(names, weights)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("high,,low", "is not a queue's name"),
        ("high,", "is not a queue's name"),
        ("=5,low=1", "is not a queue's name"),
        ("high=5,low", "gives some queues a weight and others none"),
        ("high=0,low=1", "gives high a weight that is none: it is a whole number from 1 to 100"),
        ("high=101,low=1", "gives high a weight that is none"),
        ("high=x,low=1", "gives high a weight that is none"),
        ("a=b=1,low=1", "has a name with '='"),
        ("arq:queue=3", "gives the only queue a weight, and the name of a queue has no '=': write arq:queue"),
        ("low,high,low", "names low twice"),
        ("arq:abort", "the queue's name is that of a key with another purpose"),
        ("arq:queue:leases", "the queue's name is that of a key with another purpose"),
        (",".join(map(str, range(17))), "names 17 queues: a worker serves 16 at most"),
    ],
)
def test_what_is_no_list_of_queues_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    """With the variable's name, the true cause and examples."""
    monkeypatch.setenv("WORKER_QUEUE", text)

    with pytest.raises(SettingsError) as caught:
        WorkerSettings.load()

    assert str(caught.value).startswith(f"WORKER_QUEUE: {problem}")
    assert "high=5,arq:queue=3,low=1" in str(caught.value)


def test_the_default_queue_is_arqs_or_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where commands and functions enqueue that name none."""
    found = []
    for text in ("high,arq:queue,low", "high,low", "letters"):
        monkeypatch.setenv("WORKER_QUEUE", text)
        found.append(WorkerSettings.load().default_queue)

    assert found == ["arq:queue", "high", "letters"]


_NAMES = st.integers(1, 6).map(lambda count: tuple(f"q{number}" for number in range(count)))
_SERVED = _NAMES.flatmap(
    lambda names: st.builds(
        ServedQueues,
        st.just(names),
        st.none() | st.lists(st.integers(1, 20), min_size=len(names), max_size=len(names)).map(tuple),
    )
)
_ROOMS = st.lists(st.integers(1, 60), min_size=1, max_size=80)


def _claim(queues: list["deque[str]"], room: int, own: list[int]) -> list[str]:
    """Claim as the script does: each queue fills its places, then all together, in order, what is left."""
    taken: list[str] = []
    for queue, places in [*zip(queues, own, strict=True), *((queue, room) for queue in queues)]:
        taken += [queue.popleft() for _ in range(min(places, room - len(taken), len(queue)))]
    return taken


@given(_SERVED, _ROOMS)
def test_the_places_of_a_claim_are_dealt_in_the_cycle_whatever_its_room(served: ServedQueues, rooms: list[int]) -> None:
    """One claim of 60 jobs gets what sixty claims of one get; never more than there is room."""
    turns, one_by_one = Turns(served), Turns(served)

    for room in rooms:
        dealt = list(turns.deal(room))
        singly = [sum(places) for places in zip(*(one_by_one.deal(1) for _ in range(room)), strict=True)]
        assert dealt == singly
        assert sum(dealt) <= room


@given(_SERVED, _ROOMS)
def test_no_queue_starves(served: ServedQueues, rooms: list[int]) -> None:
    """While it has jobs due, it gets one in 16 (n - 1) places, or in as many as the sum of the weights."""
    count = len(served.names)
    queues = [deque([name] * 10_000) for name in served.names]
    turns = Turns(served)
    bound = EVERY * (count - 1) if served.weights is None else sum(served.weights)

    order = [job for room in rooms for job in _claim(queues, room, list(turns.deal(room)))]

    assert len(order) == sum(rooms)
    slack = max(rooms)  # within one claim the order is not that of the cycle
    for name in served.names[1:]:
        waits = [at for at, job in enumerate(order) if job == name]
        gaps = [later - at for at, later in zip([-1, *waits], [*waits, len(order)], strict=True)]
        assert max(gaps) <= bound + slack


@given(st.lists(st.integers(1, 20), min_size=2, max_size=6))
def test_weights_are_shares(weights: list[int]) -> None:
    """In as many places in a row as the sum of the weights, wherever they begin, each queue has exactly its own."""
    served = ServedQueues(tuple(map(str, range(len(weights)))), tuple(weights))
    turns, total = Turns(served), sum(weights)
    order = [list(turns.deal(1)).index(1) for _ in range(2 * total)]

    for begin in range(total):
        assert [Counter(order[begin : begin + total])[number] for number in range(len(weights))] == weights


def test_the_urgent_queue_has_fifteen_of_sixteen_places() -> None:
    """In strict order, the lowest queue first, then the others in turn."""
    turns = Turns(ServedQueues.parse("high,middle,low"))

    dealt = [list(turns.deal(1)) for _ in range(2 * EVERY)]

    assert [at for at, own in enumerate(dealt, 1) if own != [0, 0, 0]] == [16, 32]
    assert (dealt[15], dealt[31]) == ([0, 0, 1], [0, 1, 0])
