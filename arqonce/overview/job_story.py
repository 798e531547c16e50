"""Tells a job's story in time order, from the facts of both servers. Asks no server.

Payload and result are no part of it. Of a failure that is not ours it has the code alone: its text may have data.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count, islice
from typing import Any

from arqonce.connection.job_keys import JobKeys, Place
from arqonce.failures import failure_to_wire, is_own_code
from arqonce.ledger.job_rows import LetterRow, PromiseRow, ReceiptRow
from arqonce.ledger.schedule_control import UNTIL_RESUMED
from arqonce.ledger.tables import AttemptRecord
from arqonce.overview.job_facts import ATTEMPTS, JobFacts, LedgerFacts, Run, slot_of, waits_in
from arqonce.relay.unserved import CURE
from arqonce.wire.message import Message

NOWHERE = (
    "no server has a job with this id. It was never enqueued, its transaction was rolled back, or the id is misspelt; "
    "or it has ended, and what was known of it was removed: a result after WORKER_KEEP_RESULT, a receipt after "
    "WORKER_KEEP_RECEIPTS, a dead letter when it was discarded or after WORKER_KEEP_DEAD. A read-only job and a "
    "function of arq's leave no receipt under their own id"
)


_MOST_NUMBERS = 10
"""Most numbers of attempts in one line."""


@dataclass(frozen=True)
class Event:
    """One part of the story."""

    at: datetime | None
    """``None``: it is so now."""

    event: str
    """One word, for scripts."""

    text: str
    """For people."""

    facts: dict[str, Any] = field(default_factory=dict)


def state_of(facts: JobFacts) -> str:
    """Return where the job is now: succeeded, refused, running, waiting, deferred, promised, dead, failed or unknown.

    ``failed`` is a failure of which only Redis knows. A dead job that was put back into its queue is waiting.
    """
    keys, ledger = facts.keys, facts.ledger
    if ledger is not None and ledger.receipt is not None:
        return "succeeded" if ledger.receipt.failure is None else "refused"
    if keys is not None and (keys.places or keys.is_locked):
        return _state_in_queue(keys)
    if ledger is not None and ledger.letter is not None:
        return "dead"
    if ledger is not None and ledger.promise is not None:
        return "promised"
    if facts.answer is not None:
        return "succeeded" if facts.answer.get("s") else "failed"
    return "unknown"


def _state_in_queue(keys: JobKeys) -> str:
    if keys.is_locked:
        return "running"
    return "waiting" if any(_is_due(place, keys) for place in keys.places) else "deferred"


def _is_due(place: Place, keys: JobKeys) -> bool:
    return place.due_at <= keys.now


def events_of(facts: JobFacts, program: str | None = None) -> list[Event]:
    """Return the story, in time order; what is so now comes last. Acts are named as commands of ``program``, if any."""
    found = list(_events(facts, program))
    return sorted(found, key=lambda event: (event.at is None, event.at or datetime.max.replace(tzinfo=UTC)))


def _events(facts: JobFacts, program: str | None) -> Iterator[Event]:
    ledger = facts.ledger
    if (slot := slot_of(facts.job_id)) is not None:
        yield Event(None, "slot", f"it is the slot {slot[1]} of the schedule {slot[0]}", {"schedule": slot[0]})
    if facts.message is not None:
        yield from _of_message(facts.message, is_promised=ledger is not None and ledger.promise is not None)
    if ledger is not None:
        yield from _of_ledger(ledger, facts.job_id, program)
        yield from _of_relatives(ledger, has_parent=facts.message is not None and facts.message.parent is not None)
    if (lost := _lost_attempts(facts)) is not None:
        yield Event(None, "no_record", lost)
    if facts.keys is not None:
        yield from _of_redis(facts, facts.keys)


def _of_message(message: Message, *, is_promised: bool) -> Iterator[Event]:
    if not is_promised:
        yield Event(_at_ms(message.enqueued_ms), "enqueued", "enqueued, by its producer's clock")
    if message.expires_ms is not None:
        until = _at_ms(message.expires_ms)
        yield Event(None, "expires", f"it expires at {_time(until)} unless a worker has started it", {"until": until})
    if message.parent is not None:
        yield Event(None, "parent", f"it is a follow-up of {message.parent}", {"job_id": message.parent})


def _of_ledger(ledger: LedgerFacts, job_id: str, program: str | None) -> Iterator[Event]:
    if ledger.promise is not None:
        yield from _of_promise(ledger.promise)
    yield from map(_of_attempt, ledger.attempts)
    if ledger.receipt is not None:
        yield _of_receipt(ledger.receipt)
    if ledger.letter is not None:
        yield _of_letter(ledger.letter, job_id, program)


def _of_relatives(ledger: LedgerFacts, *, has_parent: bool) -> Iterator[Event]:
    if ledger.parent is not None and not has_parent:
        parent = ledger.parent
        yield Event(None, "parent", f"it is a follow-up of {parent.job_id} ({parent.state})", {"job_id": parent.job_id})
    for one in ledger.follow_ups:
        told = f"its follow-up {one.job_name} {one.job_id}: {one.state}"
        yield Event(None, "follow_up", told, {"job_id": one.job_id, "job_name": one.job_name, "state": one.state})
    if (until := ledger.schedule_paused_until) is not None:
        is_open = until == UNTIL_RESUMED
        told = f"its schedule is paused until {'it is resumed' if is_open else _time(until)}"
        yield Event(None, "schedule_paused", told, {"until": None if is_open else until})  # the job itself runs
    if ledger.unique_until is not None:
        until = ledger.unique_until
        yield Event(None, "unique", f"an equal request is this job until {_time(until)}", {"until": until})


def _of_promise(promise: PromiseRow) -> Iterator[Event]:
    due = (
        "due at once" if promise.due_at <= promise.created_at + timedelta(seconds=1) else f"due {_time(promise.due_at)}"
    )
    where = {"queue": promise.queue, "due_at": promise.due_at}
    yield Event(promise.created_at, "promised", f"promised for the queue {promise.queue}, {due}", where)
    if promise.dispatched_at is None:
        told = f"no relay has given it to Redis yet; it is to do so at {_time(promise.give_at)}"
        yield Event(None, "not_given", told, {"give_at": promise.give_at})
        return
    times = "once" if promise.dispatches == 1 else f"{promise.dispatches} times"
    told = f"given to Redis by a relay, {times} in this epoch; again at {_time(promise.give_at)} unless it has ended"
    yield Event(promise.dispatched_at, "given", told, {"times": promise.dispatches, "give_at": promise.give_at})


def _of_attempt(record: AttemptRecord) -> Event:
    took = (record.failed_at - record.started_at).total_seconds()
    state = f", SQLSTATE {record.sqlstate}" if record.sqlstate else ""
    counted = "" if record.counted else "; it does not count"
    then = "; it was the last one" if record.retry_at is None else f"; to run again at {_time(record.retry_at)}"
    text = f"attempt {record.attempt} failed on {record.worker} after {took:.3f} s: {record.code}{state}{counted}{then}"
    names = ("attempt", "worker", "code", "sqlstate", "error", "started_at", "retry_at", "counted")
    return Event(record.failed_at, "attempt_failed", text, {name: getattr(record, name) for name in names})


def _of_receipt(receipt: ReceiptRow) -> Event:
    facts = {"attempt": receipt.attempt, "failure": None}
    if receipt.failure is None:
        return Event(receipt.finished_at, "succeeded", f"succeeded in attempt {receipt.attempt}: its receipt", facts)
    code = receipt.failure.get("type", "")
    facts["failure"] = code  # type: ignore[assignment] # a str
    told = f"refused in attempt {receipt.attempt}: {_failure(code, receipt.failure.get('message', ''))}"
    return Event(receipt.finished_at, "refused", told, facts)


def _of_letter(letter: LetterRow, job_id: str, program: str | None) -> Event:
    command = f"{program} dead retry {job_id}, or else dead discard; dead show has the error and the message"
    cure = "" if program is None else f"; when the cause is mended: {command}"
    attempts = "1 attempt" if letter.attempts == 1 else f"{letter.attempts} attempts"
    text = f"dead after {attempts}: {_failure(letter.reason, letter.explanation)}{cure}"
    names = ("reason", "attempts", "sqlstate", "error")
    return Event(letter.died_at, "died", text, {name: getattr(letter, name) for name in names})


def _of_redis(facts: JobFacts, keys: JobKeys) -> Iterator[Event]:
    for place in keys.places:
        yield _of_place(place, keys, facts.runs_on)
    if not keys.is_locked:
        yield from _of_obstacles(facts, set(waits_in(keys, facts.ledger)))
    if not keys.places and keys.is_locked:
        yield Event(None, "running", "a worker holds it, and no queue that was looked at has it")
    elif not keys.places and keys.message is not None:
        where = ", ".join(facts.queues)
        cure = "if it was enqueued into another one, WORKER_QUEUE can name that"
        yield Event(None, "not_queued", f"Redis has its message, but none of these queues has it: {where}; {cure}")
    if keys.places and keys.message is None and f"arq:job:{facts.job_id}" not in keys.denied:
        yield Event(None, "no_message", "Redis has lost its message: the worker that claims it will say so")
    if keys.attempts:
        yield Event(None, "attempts", f"{keys.attempts} attempts have counted so far", {"counted": keys.attempts})
    if keys.abort_at is not None:
        yield Event(keys.abort_at, "abort_asked", "somebody asked for its abort, which no worker has heeded yet")
    if facts.answer is not None:
        yield _of_answer(facts.answer)
    elif keys.result is not None:
        yield Event(None, "answered", "Redis has a result that is no JSON of ours")


def _of_obstacles(facts: JobFacts, queues: set[str]) -> Iterator[Event]:
    for queue in facts.unserved:
        yield Event(None, "unserved", f"no worker serves the queue {queue}: {CURE}", {"queue": queue})
    names = set() if facts.ledger is None else facts.ledger.names
    names = {"", *names} if facts.message is None else {"", facts.message.name}
    for pause in () if facts.ledger is None else facts.ledger.pauses:
        if pause.queue in queues and pause.job_name in names:
            what = f"its kind is paused in {pause.queue}" if pause.job_name else f"the queue {pause.queue} is paused"
            until = "until it is resumed" if pause.until is None else f"until {_time(pause.until)}"
            told = f"{what} since {_time(pause.paused_at)}, {until}, by {pause.paused_by}: {pause.reason}"
            yield Event(None, "paused", told, {"queue": pause.queue, "kind": pause.job_name, "until": pause.until})


def _of_place(place: Place, keys: JobKeys, run: Run | None) -> Event:
    where: dict[str, Any] = {"queue": place.queue}
    if keys.is_locked and place.lease_until is not None:
        on = "" if run is None else f" on {run.worker} since {_time(run.since)}"
        told = f"running{on}, from the queue {place.queue}; its worker's claim holds until {_time(place.lease_until)}"
        where |= {"lease_until": place.lease_until} | ({} if run is None else run._asdict())
        return Event(None, "running", f"{told} and is renewed", where)
    if keys.is_locked:
        return Event(None, "running", f"running in a worker of arq's own class, from the queue {place.queue}", where)
    if place.lease_until is not None:
        told = f"its worker has died, stands still or has lost Redis: it waits in {place.queue} for the next claim"
        return Event(None, "left", told, where)
    if place.is_put_aside or place.is_parked:
        reason = "the end of its kind's pause" if place.is_put_aside else "a permit of a limit"
        told = f"waiting in {place.queue} for {reason}, due since {_time(place.due_at)}"
        return Event(None, "held" if place.is_put_aside else "parked", told, where | {"since": place.due_at})
    if _is_due(place, keys):
        told = f"waiting in {place.queue} since {_time(place.due_at)}, {place.before:,} before it"
        return Event(None, "waiting", told, where | {"since": place.due_at, "before": place.before})
    told = f"deferred in {place.queue} until {_time(place.due_at)}"
    return Event(None, "deferred", told, where | {"due_at": place.due_at})


def _of_answer(answer: dict[str, Any]) -> Event:
    at = _at_ms(answer.get("ft"))
    facts = {"succeeded": bool(answer.get("s")), "attempt": answer.get("t"), "queue": answer.get("q")}
    if answer.get("s"):
        return Event(at, "answered", "its result, which is still in Redis: succeeded", facts)
    failure = failure_to_wire(answer["r"]) if isinstance(answer.get("r"), BaseException) else {}
    told = _failure(failure.get("type", ""), failure.get("message", ""))
    return Event(
        at, "answered", f"its result, which is still in Redis: failed: {told}", facts | {"failure": failure.get("type")}
    )


def _failure(code: str, message: str) -> str:
    return f"{code}: {message}" if message and is_own_code(code) else code


def _lost_attempts(facts: JobFacts) -> str | None:
    """Say which of its attempts left no record."""
    ledger = facts.ledger
    if ledger is None or any(missed.startswith(ATTEMPTS) for missed in facts.not_seen):
        return None
    counted = facts.keys.attempts if facts.keys is not None else 0
    before = ledger.receipt.attempt - 1 if ledger.receipt is not None else 0
    dead = ledger.letter.attempts if ledger.letter is not None else 0
    known = {record.attempt for record in ledger.attempts}
    # One by one, and not all: whoever writes into Redis chooses the number.
    missing = list(islice((n for n in count(1) if n not in known), _MOST_NUMBERS + 1))
    missing = [number for number in missing if number <= max(counted, before, dead)]
    if not missing:
        return None
    numbers = ", ".join(map(str, missing[:_MOST_NUMBERS])) + (", ..." if len(missing) > _MOST_NUMBERS else "")
    return (
        f"of attempt {numbers} there is no record: its worker died, PostgreSQL was away, the job could not even be "
        "started (it is unreadable, unknown or invalid), or it was longer ago than WORKER_KEEP_ATTEMPTS"
    )


def _at_ms(value: object) -> datetime | None:
    try:
        return datetime.fromtimestamp(value / 1000, UTC) if isinstance(value, int) and value > 0 else None
    except (ValueError, OverflowError, OSError):
        return None


def _time(at: datetime | None) -> str:
    return "an unknown time" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
