"""Each check must bite: evidence in which one thing is wrong breaks the promise that it should."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from chaos.careless import Careless
from chaos.checks import CHECKS, Verdict
from chaos.evidence import Evidence, Person, Receipt, Slots, Strike
from chaos.functions import NoteFunction
from chaos.limits import Over
from chaos.plan import Route
from chaos.producer import Heard
from chaos.schedules import SECOND
from chaos.workload import Fate, MisspeltUser, Order
from jobs.payloads import CreateUser, CreateUsers, FindUser, GetOrCreateUser, NewUser

JANE = {"id": 1, "name": "Jane", "email": None, "created_at": "2026-01-01T00:00:00Z"}
ANN = {"id": 2, "name": "Ann", "email": "ann@example.org", "created_at": "2026-01-01T00:00:00Z"}

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def _order(key: str, payload: Any, route: Route = Route.OUTBOX, fate: Fate = Fate.SETTLED) -> Order:  # noqa: ANN401
    return Order(key=key, payload=payload, route=route, at=0, fate=fate)


@pytest.fixture
def evidence() -> Evidence:
    """Return what a run leaves behind that has kept every promise."""
    orders = [
        _order("jane", CreateUser(name="Jane")),
        _order("ann", GetOrCreateUser(name="Ann", email="ann@example.org")),
        _order("again", GetOrCreateUser(name="Anna", email="ann@example.org"), Route.DIRECT),
        _order("many", CreateUsers(users=[NewUser(name="Bob"), NewUser(name="An", email="ann@example.org")])),
        _order("find", FindUser(name="Jane"), Route.DIRECT),
        _order("poison", MisspeltUser(nme="x"), fate=Fate.DEAD),
        _order("never", CreateUser(name="Nobody"), fate=Fate.NEVER),
        _order("careless", Careless(what="lock", name="Cary"), fate=Fate.WHOLE),
        _order("refused", Careless(what="commit", name="Nemo"), fate=Fate.DEAD),
        _order("function", NoteFunction(name="Fay"), Route.DIRECT),
    ]
    return Evidence(
        orders=orders,
        accepted={order.key: 5.0 for order in orders if order.fate is not Fate.NEVER},
        valkey_lost_at=3.0,
        users={
            1: Person("Jane", None),
            2: Person("Ann", "ann@example.org"),
            3: Person("Bob", None),
            4: Person("Cary", None),
        },
        receipts={
            "jane": Receipt("create_user", dict(JANE)),
            "careless": Receipt("careless", {}, attempt=3),
            "again": Receipt("get_or_create_user", {"user": dict(ANN), "is_new": False}, attempt=2, finished_at=102.0),
            "ann": Receipt("get_or_create_user", {"user": dict(ANN), "is_new": True}),
            "many": Receipt(
                "create_users", {"users": [{"id": 3, "is_new": True}, {"id": 2, "is_new": False}]}
            ),
        },
        dead={"poison": "invalid_payload", "hostile-1": "malformed_message", "refused": "RuntimeError"},
        effects=Counter({"Jane": 1, "Ann": 1, "Bob": 1, "Cary": 1}),
        functions={"function": 105.0},
        schedules={"ticks": Slots(NOON - 0.5 * SECOND, NOON + 2 * SECOND, True, Counter([NOON, NOON + SECOND]))},  # noqa: FBT003 - the fields of a row
        function_runs={"Fay": [101.0, 104.0]},
        submitted=dict.fromkeys([order.key for order in orders], 100.0),
        heard={
            "jane": [Heard(dict(JANE))],
            "find": [Heard({"users": []})],
            "poison": [Heard(None, "invalid_payload")],
            "careless": [Heard({})],
        },
        strikes=[Strike("kill", 90.0, 90.0), Strike("kill", 101.0, 101.0), Strike("pg-failover", 101.0, 102.0)],
        answers={"jane": dict(JANE), "again": {"user": dict(ANN), "is_new": False}},
        done={"find"},
        hostile_ids={"hostile-1"},
        ends=Counter({"killed": 3, "stopped": 3}),
    )  # fmt: skip


def test_promises_that_are_kept_break_nothing(evidence: Evidence) -> None:
    """The evidence that all other tests begin with."""
    assert Verdict(evidence).breaches == []


BREACHES: dict[str, list[Callable[[Evidence], object]]] = {
    "lost": [
        lambda e: (e.receipts.pop("jane"), e.answers.pop("jane"), e.users.pop(1), e.effects.pop("Jane")),
        lambda e: e.done.clear(),
        lambda e: e.dead.pop("poison"),
        lambda e: e.functions.clear(),
        lambda e: (e.receipts.pop("careless"), e.users.pop(4), e.effects.pop("Cary")),
        # An outbox job is no loss of Redis.
        lambda e: (
            e.receipts.pop("jane"),
            e.answers.pop("jane"),
            e.users.pop(1),
            e.effects.pop("Jane"),
            e.__dict__.update(valkey_lost_at=9.0),
        ),
    ],
    "in no book": [
        lambda e: e.receipts.pop("again"),  # answered, with nothing to store: a receipt all the same
        lambda e: e.receipts.pop("jane"),
    ],
    "not submitted": [lambda e: e.accepted.pop("find")],
    "in two books": [lambda e: e.outbox.add("jane"), lambda e: e.dead.update(jane="timeout")],
    "not done in time": [lambda e: e.queued.append("jane"), lambda e: e.outbox.add("poison")],
    "took effect twice": [
        lambda e: e.effects.update(["Jane"]),
        lambda e: e.receipts.update(again=Receipt("get_or_create_user", {"user": dict(ANN), "is_new": True})),
    ],
    "effect without an answer": [
        lambda e: e.users.update({9: Person("Jane", None)}),
        lambda e: e.effects.update(["Zoe"]),
        lambda e: e.users.update({9: Person("Nemo", None)}),
    ],
    "answer without its effect": [
        lambda e: e.users.pop(1),
        lambda e: e.users.update({1: Person("Janet", None)}),
        lambda e: e.users.pop(4),
        lambda e: e.users.update({2: Person("Ann", "other@example.org")}),
        lambda e: e.users.update({3: Person("Bob", "bob@example.org")}),
    ],
    "refused for nothing": [lambda e: e.receipts.update(jane=Receipt("create_user", None, {"type": "email_taken"}))],
    "two answers": [lambda e: e.answers["jane"].update(id=3), lambda e: e.answers.update(poison={})],
    "dead without being poison": [lambda e: e.dead.update(find="database_failed")],
    "dead of what was not there": [
        lambda e: e.dead.update(poison="attempts_exhausted"),
        lambda e: e.dead.update(refused="deadline_exceeded"),
        lambda e: e.__dict__.update(dead={"refused": "attempts_exhausted"}, strikes=[]),
    ],
    "told what the ledger does not know": [
        lambda e: e.heard.update(jane=[Heard(dict(ANN))]),
        lambda e: e.heard.update(jane=[Heard(None, "TimeoutError")]),
        lambda e: e.heard.update(poison=[Heard(None, "TimeoutError")]),
        lambda e: e.heard.update(poison=[Heard({})]),
        lambda e: e.heard.update(find=[Heard(None, "TimeoutError")]),
        lambda e: (e.heard.update(again=[Heard(e.receipts["again"].result)]), e.receipts.pop("again")),
    ],
    "attempts burnt by an outage": [
        lambda e: e.strikes.clear(),
        lambda e: e.strikes.pop(1),  # the one that is left was over before the job was sent
        lambda e: e.submitted.update(again=101.5),
        lambda e: e.receipts.update(again=e.receipts["again"]._replace(attempt=3)),
        lambda e: e.receipts.update(again=e.receipts["again"]._replace(finished_at=100.5)),
    ],
    "function on record without a run": [lambda e: e.function_runs.clear()],
    "function run again after its record": [lambda e: e.function_runs["Fay"].append(160.0)],
    "poison took effect": [
        lambda e: e.receipts.update(refused=Receipt("careless", {})),
        lambda e: e.receipts.update(poison=Receipt("create_user", dict(JANE))),
        lambda e: e.receipts.update({"hostile-1": Receipt("create_user", dict(JANE))}),
        lambda e: setattr(e, "has_exploded", True),
    ],
    "a slot of a schedule not exactly once": [
        lambda e: e.schedules["ticks"].effects.subtract([NOON]),
        lambda e: e.schedules["ticks"].effects.update([NOON]),
        lambda e: e.schedules["ticks"].effects.update([NOON + 2 * SECOND]),
        lambda e: e.schedules.update(ticks=e.schedules["ticks"]._replace(is_over=False)),
    ],
    "more at once than a limit allows": [
        lambda e: e.over.append(Over(1, 500.0)),
        lambda e: e.__dict__.update(over=[Over(1, 500.0)], strikes=[Strike("black-hole", 490.0, 493.0)]),
    ],
    "rolled back and yet run": [lambda e: e.done.add("never"), lambda e: e.outbox.add("never")],
    "worker ended unasked": [lambda e: e.ends.update(["exit code 1 for no reason of ours: worker-0.log"])],
    "data or password in a log": [lambda e: e.leaks.append("worker-0.log: Quo…")],
}


@pytest.mark.parametrize(
    ("promise", "spoil"), [(promise, spoil) for promise, spoilers in BREACHES.items() for spoil in spoilers]
)
def test_each_breach_is_found(evidence: Evidence, promise: str, spoil: Callable[[Evidence], object]) -> None:
    """Under its own name; it may break others too."""
    spoil(evidence)

    assert promise in {breach.promise for breach in Verdict(evidence).breaches}


def test_no_check_is_left_without_a_breach() -> None:
    """A new check comes with evidence that breaks it."""
    assert BREACHES.keys() == CHECKS.keys()


def test_what_redis_has_lost_is_counted_apart(evidence: Evidence) -> None:
    """Only of direct jobs, and only of those that it had acknowledged before it went."""
    evidence.done.clear()
    evidence.valkey_lost_at = 9.0
    verdict = Verdict(evidence)

    assert [order.key for order in verdict.lost_by_redis] == ["find"]
    assert verdict.breaches == []


def test_a_breach_names_nobody(evidence: Evidence) -> None:
    """What is printed is searched for invented people as well."""
    evidence.effects.update(["Quokka 7.1.0"] * 2)

    assert "Quokka" not in " ".join(map(str, Verdict(evidence).breaches))
