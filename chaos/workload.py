"""The jobs of one run, made from its seed: all kinds, both routes, with poison and duplicates. Sends nothing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from operator import attrgetter
from random import Random
from typing import ClassVar

from arqonce.payloads import AnyPayload, Payload
from chaos.careless import HABITS, REFUSED, Careless
from chaos.functions import NoteFunction
from chaos.jobs import PHASES, Slow, SlowTogether
from chaos.limits import TENANTS, Limited
from chaos.plan import MARKER, Plan, Route, schedule
from chaos.turns import TakeTurn
from jobs.payloads import CreateUser, CreateUsers, FindUser, FoundUsers, GetOrCreateUser, NewUser, UserView

_SHARE_OF_TIME = 0.9
"""Share of the duration in which jobs are submitted, so that the last ones meet faults, too."""

_WAITS_EVERY = 4
"""The producer waits for the result of one in this many jobs."""

_BEFORE_STANDSTILL = 0.8
"""Seconds before a standstill in which slow jobs are submitted."""

_COPIES = 20
"""How often a duplicate is submitted at once with one key."""


class Fate(Enum):
    """How a job must end."""

    SETTLED = "settled"
    """It succeeds, or the registry refuses it (the e-mail is taken)."""

    DEAD = "dead"
    """It is poison: it ends as a dead letter without effect."""

    WHOLE = "whole"
    """Its handler is careless: it succeeds with its effect, or ends as a dead letter without."""

    NEVER = "never"
    """Its transaction is rolled back, so it never runs."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """One job to submit ``at`` seconds after the start, ``copies`` times at once."""

    key: str
    payload: AnyPayload
    route: Route
    at: float
    copies: int = 1
    fate: Fate = Fate.SETTLED
    waits: bool = False
    """Whether its producer waits for the result."""


class MisspeltUser(Payload[UserView]):
    """A producer's mistake: ``create_user`` has no such field."""

    job_name: ClassVar[str] = "create_user"
    nme: str


class SendMail(Payload[UserView]):
    """A job that no worker knows."""

    job_name: ClassVar[str] = "send_mail"
    name: str


class NumberedUser(Payload[FoundUsers]):
    """A field of a wrong type."""

    job_name: ClassVar[str] = "get_or_create_user"
    name: int
    email: str


def orders(plan: Plan) -> list[Order]:
    """Return the jobs of the run in the order in which they are submitted."""
    random = plan.random("jobs")
    span = plan.duration.total_seconds() * _SHARE_OF_TIME
    times = sorted(random.uniform(0, span) for _ in range(plan.jobs))
    submitted = [_order(plan, random, number, at) for number, at in enumerate(times)]
    _gather_slow_jobs(plan, submitted)
    submitted.sort(key=attrgetter("at"))
    return [
        replace(order, waits=number % _WAITS_EVERY == 0 and not isinstance(order.payload, NoteFunction))
        for number, order in enumerate(submitted)
    ]


def _gather_slow_jobs(plan: Plan, submitted: list[Order]) -> None:
    """Move the slow jobs to shortly before the standstills, so that many run during these, in all phases."""
    standstills = [occurrence.at for occurrence in schedule(plan) if occurrence.fault == "standstill"]
    random = plan.random("slow jobs")
    for number, order in enumerate(submitted):
        if isinstance(order.payload, Slow | SlowTogether):
            at = random.choice(standstills) + random.uniform(-_BEFORE_STANDSTILL, 0.1)
            submitted[number] = replace(order, at=max(0.0, at))


def _order(plan: Plan, random: Random, number: int, at: float) -> Order:
    route, chance = random.choice(plan.routes), random.random()
    people, key = _People(plan, random, number), f"chaos-{plan.seed}-{number}"
    if "careless" in plan.faults and 0.90 < chance < 0.93:
        habit = random.choice(HABITS)
        fate = Fate.DEAD if habit in REFUSED else Fate.WHOLE
        return Order(key=key, payload=Careless(what=habit, name=people.name()), route=route, at=at, fate=fate)
    if "functions" in plan.faults and 0.70 < chance < 0.80:
        return Order(key=key, payload=NoteFunction(name=people.name()), route=Route.DIRECT, at=at)
    if (kinds := people.special(chance)) is not None:
        return Order(key=key, payload=random.choice(kinds)(), route=route, at=at)
    if "poison" in plan.faults and chance < 0.01:
        return Order(key=key, payload=random.choice(people.poison)(), route=route, at=at, fate=Fate.DEAD)
    if route is Route.OUTBOX and chance < 0.03:
        return Order(key=key, payload=people.create(), route=route, at=at, fate=Fate.NEVER)
    copies = _COPIES if "duplicates" in plan.faults and chance > 0.98 else 1
    return Order(key=key, payload=random.choices(*people.kinds)[0](), route=route, at=at, copies=copies)


class _People:
    """Invents the people of one job. Names are unique in the run; many jobs share some e-mails."""

    def __init__(self, plan: Plan, random: Random, number: int) -> None:
        self._plan, self._random, self._number = plan, random, number
        self._names = self._numbered(f"{MARKER} {plan.seed}.{number}")

    @property
    def kinds(self) -> tuple[list[Callable[[], AnyPayload]], list[int]]:
        """The kinds of jobs, with their percentages.

        Most jobs have no e-mail, so that no constraint hides a second effect.
        """
        kinds: dict[Callable[[], AnyPayload], int] = {
            self.create: 30,
            self.create_shared: 5,
            self.take_turn: 15,
            self.get_or_create: 10,
            self.get_or_create_shared: 20,
            self.find: 10,
            self.batch: 10,
        }
        return list(kinds), list(kinds.values())

    @property
    def poison(self) -> list[Callable[[], AnyPayload]]:
        """Jobs that must end as dead letters."""
        return [
            lambda: MisspeltUser(nme=next(self._names)),
            lambda: SendMail(name=next(self._names)),
            lambda: NumberedUser(name=self._number, email=self._own_email()),
        ]

    @property
    def slow(self) -> list[Callable[[], AnyPayload]]:
        """Jobs that are slow in one phase, or in a batch."""
        return [
            lambda: Slow(name=self.name(), phase=self._random.choice(PHASES)),
            lambda: SlowTogether(name=self.name()),
        ]

    def special(self, chance: float) -> list[Callable[[], AnyPayload]] | None:
        """Return the kinds of jobs that a fault adds, if one of these it is to be."""
        faults = self._plan.faults
        if "limits" in faults and 0.55 < chance < 0.70:
            return [lambda: Limited(name=self.name(), tenant=self._random.randrange(TENANTS))]
        return self.slow if "standstill" in faults and 0.80 < chance < 0.85 else None

    def name(self) -> str:
        """Invent a name."""
        return next(self._names)

    def create(self) -> AnyPayload:
        return CreateUser(name=next(self._names))

    def create_shared(self) -> AnyPayload:
        return CreateUser(name=next(self._names), email=self._shared_email())

    def take_turn(self) -> AnyPayload:
        return TakeTurn(name=next(self._names), email=self._shared_email() if self._random.random() < 0.1 else None)

    def get_or_create(self) -> AnyPayload:
        return GetOrCreateUser(name=next(self._names), email=self._own_email())

    def get_or_create_shared(self) -> AnyPayload:
        return GetOrCreateUser(name=next(self._names), email=self._shared_email())

    def find(self) -> AnyPayload:
        if self._random.random() < 0.5:
            return FindUser(email=self._shared_email())
        return FindUser(name=f"{MARKER} {self._plan.seed}.{self._random.randint(0, self._number)}.0")

    def batch(self) -> AnyPayload:
        size = self._random.randint(2, 12)
        return CreateUsers(
            users=[NewUser(name=next(self._names), email=self._maybe_email()) for _ in range(size)],
        )

    def _maybe_email(self) -> str | None:
        return self._shared_email() if self._random.random() < 0.3 else None

    def _own_email(self) -> str:
        return f"{self._number}@{MARKER.lower()}.example"

    def _shared_email(self) -> str:
        return f"shared{self._random.randrange(1 + self._plan.jobs // 20)}@{MARKER.lower()}.example"

    @staticmethod
    def _numbered(name: str) -> Iterator[str]:
        number = 0
        while True:
            yield f"{name}.{number}"
            number += 1
