"""What a run does is decided by its seed alone."""

from datetime import timedelta

from chaos.careless import HABITS, Careless
from chaos.functions import NoteFunction
from chaos.jobs import Slow, SlowTogether
from chaos.limits import Limited
from chaos.plan import FAULTS, HARMLESS, MARKER, Plan, Route, schedule
from chaos.turns import TakeTurn
from chaos.workload import Fate, Order, orders
from jobs.payloads import CreateUser, CreateUsers, FindUser, GetOrCreateUser


def _plan(seed: int = 7, *, seconds: float = 60, faults: frozenset[str] = frozenset(FAULTS)) -> Plan:
    return Plan(seed=seed, jobs=2000, duration=timedelta(seconds=seconds), faults=faults)


def test_the_same_seed_is_the_same_run() -> None:
    """A run that fails can be run again."""
    assert (schedule(_plan()), orders(_plan())) == (schedule(_plan()), orders(_plan()))
    assert schedule(_plan(8)) != schedule(_plan())
    assert orders(_plan(8)) != orders(_plan())


def test_leaving_a_fault_out_moves_no_other() -> None:
    """A fault can be bisected: the rest comes at the same times."""
    without = schedule(_plan(faults=frozenset(FAULTS) - {"kill"}))

    assert without == [occurrence for occurrence in schedule(_plan()) if occurrence.fault != "kill"]


def test_each_fault_comes_and_ends_within_the_run() -> None:
    """Also those that are rare, in a short run."""
    for seconds in (15.0, 60.0):
        planned = schedule(_plan(seconds=seconds))

        assert {occurrence.fault for occurrence in planned} == {name for name, fault in FAULTS.items() if fault.every}
        assert all(occurrence.at + FAULTS[occurrence.fault].longest <= seconds for occurrence in planned)


def test_every_kind_of_job_is_submitted_both_ways() -> None:
    """Users', slow ones and careless ones; poison, duplicates and transactions that are rolled back among them."""
    submitted = orders(_plan())

    functions = [order for order in submitted if isinstance(order.payload, NoteFunction)]
    kinds = {(type(order.payload), order.route) for order in submitted if order.fate is Fate.SETTLED}
    kinds.remove((NoteFunction, Route.DIRECT))  # an arq service's: the outbox has no functions
    users = {CreateUser, GetOrCreateUser, FindUser, CreateUsers}
    assert {kind for kind, _ in kinds} == users | {Slow, SlowTogether, Limited, TakeTurn}
    assert len(kinds) == 16
    assert len(functions) > 100
    assert {order.payload.what for order in submitted if isinstance(order.payload, Careless)} <= set(HABITS)
    assert {order.fate for order in submitted} == set(Fate)
    assert any(order.copies > 1 for order in submitted)


def test_invented_people_are_marked_and_named_once() -> None:
    """So that they are found in logs, and a second effect of a job is one of its own."""
    submitted = orders(_plan())
    names = [name for order in submitted for name in _names(order)]

    assert len(set(names)) == len(names)
    assert all(MARKER in name for name in names)
    assert not any(MARKER.lower() in order.key.lower() for order in submitted)


def test_slow_jobs_come_before_standstills() -> None:
    """So that a worker that stands still has many of them, in each phase."""
    standstills = [occurrence.at for occurrence in schedule(_plan()) if occurrence.fault == "standstill"]

    slow = [order.at for order in orders(_plan()) if isinstance(order.payload, Slow | SlowTogether)]

    assert len(slow) > 50
    assert all(any(-0.2 <= at - order < 1 for at in standstills) for order in slow)


def test_faults_that_no_attempt_counts_for_exist() -> None:
    """A fault that is renamed is no longer excused by accident, nor blamed."""
    assert FAULTS.keys() >= HARMLESS


def _names(order: Order) -> list[str]:
    match order.payload:
        case CreateUser() | GetOrCreateUser() | Slow() | SlowTogether() | Limited() | Careless():
            return [order.payload.name]
        case CreateUsers():
            return [user.name for user in order.payload.users]
        case _:
            return []
