"""The promises, each as a check of the evidence: pure functions, so that tests can show that each check can fail."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from arqonce.failures import (
    AttemptsExhaustedError,
    DeadlineExceededError,
    InvalidPayloadError,
    MessageMissingError,
    PromiseExpiredError,
    UnknownJobError,
)
from arqonce.payloads import AnyPayload
from chaos.careless import Careless
from chaos.evidence import Evidence, Person, Receipt
from chaos.functions import NoteFunction
from chaos.jobs import Slow, SlowTogether
from chaos.limits import Limited
from chaos.plan import FAULTS, HARMLESS, Route
from chaos.producer import Heard
from chaos.schedules import SECOND
from chaos.turns import TakeTurn
from chaos.workload import Fate, Order
from jobs.payloads import CreateUser, CreateUsers, FindUser, GetOrCreateUser

_EXAMPLES = 5
"""Most examples of a breach that are shown."""


class Breach(NamedTuple):
    """A promise that was not kept, with all violations."""

    promise: str
    examples: list[str]

    def __str__(self) -> str:
        """Format the breach in one line."""
        shown = ", ".join(self.examples[:_EXAMPLES])
        return f"{self.promise}: {len(self.examples)} ({shown}{', …' if len(self.examples) > _EXAMPLES else ''})"


class Told(NamedTuple):
    """What a job's result states about one user: the id, whether the job stored it, and the expected fields."""

    user_id: int
    is_new: bool
    name: str | None
    email: str | None


@dataclass(frozen=True)
class Verdict:
    """The judgment on the evidence."""

    evidence: Evidence

    @cached_property
    def breaches(self) -> list[Breach]:
        """All promises that were not kept."""
        found = (Breach(promise, sorted(map(str, check(self)))) for promise, check in CHECKS.items())
        return [breach for breach in found if breach.examples]

    @cached_property
    def submitted(self) -> list[Order]:
        """The accepted jobs, which must have ended."""
        return [order for order in self.evidence.orders if order.key in self.evidence.accepted]

    @cached_property
    def missing(self) -> list[Order]:
        """The accepted jobs that have left no trace."""
        return [order for order in self.submitted if not (self._is_booked(order) or self._is_answered(order))]

    @cached_property
    def unbooked(self) -> list[Order]:
        """The jobs that have ended without a row in the ledger.

        Direct look-ups need none: they can be run again. The success of a function stands without one in an outage.
        """
        return [
            order
            for order in self.submitted
            if not self._is_booked(order)
            and self._is_answered(order)
            and not (isinstance(order.payload, FindUser | NoteFunction) and order.route is Route.DIRECT)
        ]

    @cached_property
    def lost_by_redis(self) -> list[Order]:
        """The missing jobs that only Valkey stored, and that it may have lost after it had acknowledged them."""
        return [order for order in self.missing if self._may_be_lost(order)]

    def _is_booked(self, order: Order) -> bool:
        evidence = self.evidence
        books = (evidence.receipts, evidence.dead, evidence.outbox, evidence.functions)
        return any(order.key in book for book in books)

    def _is_answered(self, order: Order) -> bool:
        return order.key in self.evidence.answers or order.key in self.evidence.done

    def is_taken(self, payload: AnyPayload) -> bool:
        """Return whether the job creates a user with an e-mail that is already stored."""
        return isinstance(payload, CreateUser | TakeTurn) and payload.email in self._emails

    @cached_property
    def _emails(self) -> set[str]:
        return {person.email for person in self.evidence.users.values() if person.email is not None}

    def _may_be_lost(self, order: Order) -> bool:
        return order.route is Route.DIRECT and self.evidence.accepted[order.key] <= self.evidence.valkey_lost_at

    @cached_property
    def successes(self) -> list[tuple[Order, dict[str, Any]]]:
        """The jobs that have succeeded, look-ups included, with their recorded results."""
        found = []
        for order in self.evidence.orders:
            receipt = self.evidence.receipts.get(order.key)
            result = self.evidence.answers.get(order.key) if receipt is None else receipt.result
            if result is not None and order.fate is Fate.SETTLED:
                found.append((order, result))
        return found

    @cached_property
    def told(self) -> list[tuple[Order, Told]]:
        """What all results state about users."""
        return [(order, told) for order, result in self.successes for told in tell(order.payload, result)]

    @cached_property
    def claimed_names(self) -> set[str]:
        """The names of users stored by jobs whose results do not state them."""
        receipts = self.evidence.receipts
        return {
            order.payload.name
            for order in self.submitted
            if isinstance(order.payload, Careless) and order.key in receipts and receipts[order.key].failure is None
        }


def tell(payload: AnyPayload, result: dict[str, Any]) -> Iterator[Told]:
    """Yield what the result states about each user, with the fields that the payload requires; ``None`` means any."""
    match payload:
        case CreateUser() | Slow() | SlowTogether() | Limited() | TakeTurn():
            yield Told(result["id"], is_new=True, name=payload.name, email=getattr(payload, "email", None))
        case GetOrCreateUser():
            yield Told(result["user"]["id"], result["is_new"], _if(result["is_new"], payload.name), payload.email)
        case CreateUsers():
            for asked, stored in zip(payload.users, result["users"], strict=True):
                yield Told(stored["id"], stored["is_new"], _if(stored["is_new"], asked.name), asked.email)
        case FindUser():
            for user in result["users"]:
                name, email = payload.name or user["name"], payload.email or user["email"]
                yield Told(user["id"], is_new=False, name=name, email=email)


def _if(is_new: bool, name: str) -> str | None:  # noqa: FBT001 - reads like a conditional
    return name if is_new else None


Check = Callable[[Verdict], Iterator[object]]


def _lost(verdict: Verdict) -> Iterator[object]:
    excused = {order.key for order in verdict.lost_by_redis}
    return (order.key for order in verdict.missing if order.key not in excused)


def _booked_twice(verdict: Verdict) -> Iterator[object]:
    books = Counter([*verdict.evidence.receipts, *verdict.evidence.dead, *verdict.evidence.outbox])
    return (key for key, times in books.items() if times > 1)


def _late(verdict: Verdict) -> Iterator[object]:
    yield from verdict.evidence.outbox
    yield from verdict.evidence.queued


def _not_submitted(verdict: Verdict) -> Iterator[object]:
    return (
        order.key
        for order in verdict.evidence.orders
        if order.fate is not Fate.NEVER and order.key not in verdict.evidence.accepted
    )


def _effects_twice(verdict: Verdict) -> Iterator[object]:
    evidence = verdict.evidence
    yield from (_unmarked(name) for name, times in evidence.effects.items() if times > 1)
    stored = Counter(told.user_id for _, told in verdict.told if told.is_new)
    yield from (f"user {user_id}" for user_id, times in stored.items() if times > 1)


def _in_no_book(verdict: Verdict) -> Iterator[object]:
    return (order.key for order in verdict.unbooked)


def _effects_without_answer(verdict: Verdict) -> Iterator[object]:
    claimed = {told.user_id for _, told in verdict.told if told.is_new}
    names = verdict.claimed_names
    yield from (
        f"user {user_id}"
        for user_id, person in verdict.evidence.users.items()
        if user_id not in claimed and person.name not in names
    )
    yield from (_unmarked(name) for name in verdict.evidence.effects - Counter(_names(verdict)))


def _names(verdict: Verdict) -> Iterator[str]:
    return (person.name for person in verdict.evidence.users.values())


def _answers_without_effect(verdict: Verdict) -> Iterator[object]:
    for order, told in verdict.told:
        person = verdict.evidence.users.get(told.user_id)
        if person is None or not _fits(person, told):
            yield f"{order.key}: user {told.user_id}"
    yield from (_unmarked(name) for name in verdict.claimed_names - set(_names(verdict)))


def _refused_for_nothing(verdict: Verdict) -> Iterator[object]:
    """Find refusals for other reasons than a taken e-mail."""
    for order in verdict.submitted:
        receipt = verdict.evidence.receipts.get(order.key)
        if receipt is not None and receipt.failure is not None and not verdict.is_taken(order.payload):
            yield f"{order.key}: {receipt.failure.get('type')}"


def _fits(person: Person, told: Told) -> bool:
    return told.name in {None, person.name} and (told.email == person.email or (told.email is None and not told.is_new))


def _two_answers(verdict: Verdict) -> Iterator[object]:
    for key, answer in verdict.evidence.answers.items():
        receipt = verdict.evidence.receipts.get(key)
        if key in verdict.evidence.dead or (receipt is not None and receipt.result != answer):
            yield key


def _dead_without_poison(verdict: Verdict) -> Iterator[object]:
    return (
        f"{order.key}: {verdict.evidence.dead[order.key]}"
        for order in verdict.submitted
        if order.key in verdict.evidence.dead and order.fate is Fate.SETTLED
    )


_CRASHES = frozenset({"kill", "term", "stop", "standstill"})
"""Faults after which a job may really have used up its attempts without ending."""


def _false_causes(verdict: Verdict) -> Iterator[object]:
    """Find poison that died for a wrong reason, and careless jobs that died of outages, or of crashes without any."""
    evidence = verdict.evidence
    has_crashed = any(strike.fault in _CRASHES for strike in evidence.strikes)
    for order in verdict.submitted:
        reason = evidence.dead.get(order.key)
        if reason is None or order.fate is Fate.SETTLED:
            continue
        is_false = reason in _OUTAGES or (reason == AttemptsExhaustedError.code and not has_crashed)
        if is_false if isinstance(order.payload, Careless) else reason not in _POISONED:
            yield f"{order.key}: {reason}"


_POISONED = {InvalidPayloadError.code, UnknownJobError.code}
_OUTAGES = {DeadlineExceededError.code, PromiseExpiredError.code, MessageMissingError.code}


def _unknown_answers(verdict: Verdict) -> Iterator[object]:
    """Find results that producers got and that differ from the receipt or the dead letter."""
    evidence = verdict.evidence
    for order in verdict.submitted:
        for heard in evidence.heard.get(order.key, ()):
            if not _is_known(evidence, order, heard):
                yield f"{order.key}: {'a result' if heard.failure is None else heard.failure}"


def _is_known(evidence: Evidence, order: Order, heard: Heard) -> bool:
    receipt = evidence.receipts.get(order.key)
    if receipt is not None:
        return heard == Heard(receipt.result, None if receipt.failure is None else receipt.failure.get("type"))
    if heard.failure is not None:
        return evidence.dead.get(order.key) == heard.failure
    return order.key not in evidence.dead and isinstance(order.payload, FindUser) and order.route is Route.DIRECT


def _burnt_attempts(verdict: Verdict) -> Iterator[object]:
    """Find attempts after the first one that no fault explains, counting faults that end attempts since submission."""
    strikes = [strike for strike in verdict.evidence.strikes if strike.fault not in HARMLESS]
    for order in verdict.submitted:
        receipt = verdict.evidence.receipts.get(order.key)
        if receipt is None or receipt.attempt == 1 or order.fate is not Fate.SETTLED:
            continue
        sent = verdict.evidence.submitted.get(order.key, 0.0)
        hits = sum(strike.ended >= sent and strike.began <= receipt.finished_at for strike in strikes)
        if receipt.attempt - 1 > hits:
            yield f"{order.key}: attempt {receipt.attempt}, {hits} faults"


def _functions_not_run(verdict: Verdict) -> Iterator[object]:
    runs = verdict.evidence.function_runs
    for order in verdict.submitted:
        is_recorded = order.key in verdict.evidence.functions
        if is_recorded and isinstance(order.payload, NoteFunction) and order.payload.name not in runs:
            yield order.key


def _functions_run_again(verdict: Verdict) -> Iterator[object]:
    """Find runs that began after the record. A process may have been stopped between the look and the run."""
    for order in verdict.submitted:
        recorded = verdict.evidence.functions.get(order.key)
        if recorded is None or not isinstance(order.payload, NoteFunction):
            continue
        if max(verdict.evidence.function_runs.get(order.payload.name, [0.0])) > recorded + _LONGEST_STOP:
            yield order.key


_LONGEST_STOP = max(FAULTS["stop"].longest, FAULTS["standstill"].longest) + 2
"""Seconds for which a process may be stopped, and a little more."""


def _slots_not_once(verdict: Verdict) -> Iterator[object]:
    """Find seconds between begin and end of a schedule in which its job took effect never, or more than once."""
    for name, slots in verdict.evidence.schedules.items():
        if not slots.is_over:
            yield f"{name}: is not over"
        times = [slots.effects[slot] for slot in _seconds(slots.began, slots.ends or max(slots.effects))]
        yield from (
            f"{name}: slot {number} took effect {found} times" for number, found in enumerate(times) if found != 1
        )
        if len(times) != len(slots.effects):
            yield f"{name}: {len(slots.effects)} slots instead of {len(times)}"


_LOSES_PERMITS = frozenset({
    "stop", "standstill", "valkey-kill", "valkey-wipe", "valkey-failover", "valkey-demote", "black-hole", "delay"
})  # fmt: skip
"""Faults after which a job may run that Redis does not know of: its lease has ended, or Redis has lost what it knew."""


def _over_limits(verdict: Verdict) -> Iterator[object]:
    strikes = [strike for strike in verdict.evidence.strikes if strike.fault in _LOSES_PERMITS]
    for tenant, at in verdict.evidence.over:
        if not any(strike.began <= at <= strike.ended + _UNTIL_LEASED for strike in strikes):
            yield f"tenant {tenant} at {at:.1f}"


_UNTIL_LEASED = 6.0
"""Seconds after such a fault in which jobs may still run that began before it, or were given to another worker."""


def _seconds(began: datetime, ends: datetime) -> Iterator[datetime]:
    slot = began.replace(microsecond=0) + SECOND
    while slot < ends:
        yield slot
        slot += SECOND


def _poison_applied(verdict: Verdict) -> Iterator[object]:
    receipts = verdict.evidence.receipts
    yield from (order.key for order in verdict.submitted if order.fate is Fate.DEAD and order.key in receipts)
    yield from verdict.evidence.hostile_ids & receipts.keys()
    if verdict.evidence.has_exploded:
        yield "the pickle was read"


def _rolled_back_and_run(verdict: Verdict) -> Iterator[object]:
    evidence = verdict.evidence
    known: set[str] = {*evidence.receipts, *evidence.dead, *evidence.outbox, *evidence.answers, *evidence.done}
    return (order.key for order in evidence.orders if order.fate is Fate.NEVER and order.key in known)


def _unexplained_ends(verdict: Verdict) -> Iterator[object]:
    return (end for end in verdict.evidence.ends if end not in {"killed", "stopped", "could not start"})


def _leaks(verdict: Verdict) -> Iterator[object]:
    yield from verdict.evidence.leaks


def _unmarked(name: str) -> str:
    """Shorten an invented name to its numbers, because our own output is also searched for the marker."""
    return name.rsplit(" ", maxsplit=1)[-1]


CHECKS: dict[str, Check] = {
    "lost": _lost,
    "in no book": _in_no_book,
    "not submitted": _not_submitted,
    "in two books": _booked_twice,
    "not done in time": _late,
    "took effect twice": _effects_twice,
    "effect without an answer": _effects_without_answer,
    "answer without its effect": _answers_without_effect,
    "refused for nothing": _refused_for_nothing,
    "two answers": _two_answers,
    "dead without being poison": _dead_without_poison,
    "dead of what was not there": _false_causes,
    "told what the ledger does not know": _unknown_answers,
    "attempts burnt by an outage": _burnt_attempts,
    "function on record without a run": _functions_not_run,
    "function run again after its record": _functions_run_again,
    "a slot of a schedule not exactly once": _slots_not_once,
    "more at once than a limit allows": _over_limits,
    "poison took effect": _poison_applied,
    "rolled back and yet run": _rolled_back_and_run,
    "worker ended unasked": _unexplained_ends,
    "data or password in a log": _leaks,
}
"""All checks by the name under which a breach is reported."""

__all__ = ["CHECKS", "Breach", "Evidence", "Receipt", "Verdict", "tell"]
