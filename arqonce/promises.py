"""Builds the statements that insert jobs into the outbox, and reads their outcomes. Knows the ledger, no connection."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from pydantic import BaseModel

from arqonce.client.requests import Promised, Request
from arqonce.failures import KeyConflictError
from arqonce.namespace import LEDGER, in_namespace
from arqonce.payloads import Payload
from arqonce.running import RunningJob
from arqonce.statements import Parameters
from arqonce.tracing import Sending, sending
from arqonce.wire.bounds import require_queue
from arqonce.wire.keys import QUEUE, cut_calls
from arqonce.wire.request import request_hash, request_mark, request_tag, unique_name

ResultT = TypeVar("ResultT", bound=BaseModel)

_TRIES = 3
"""Most times a statement is sent if another transaction inserts the same key between its SELECT and its INSERT."""

_MOST_JOBS, _MOST_BYTES = 2000, 8 * 1024 * 1024
"""Most jobs, and about the most bytes of messages, in one statement: some 40 ms in PostgreSQL."""

_MOST_NAMED = 3
"""Most keys that one error names."""

_AGAIN = "again"
"""The outcome of a job whose key another transaction has inserted, unseen by the statement."""

_PROMISE = """
WITH request AS (
    SELECT CAST(:job_id AS text) AS job_id, CAST(:job_name AS text) AS job_name, CAST(:queue AS text) AS queue,
        decode(CAST(:message AS text), 'hex') AS message, decode(CAST(:request_hash AS text), 'hex') AS request_hash,
        to_timestamp(CAST(CAST(:due_ms AS text) AS bigint) / 1000.0) AS due_at),
ended AS (
    SELECT job_name, request_hash FROM arqonce.receipts WHERE job_id = (SELECT job_id FROM request)
    UNION ALL SELECT job_name, request_hash FROM arqonce.dead_jobs AS dead WHERE job_id = (SELECT job_id FROM request)
        AND NOT EXISTS (SELECT FROM arqonce.receipts WHERE receipts.job_id = dead.job_id)),
promised AS (
    INSERT INTO arqonce.outbox (job_id, job_name, queue, message, request_hash, due_at, give_at)
    SELECT job_id, job_name, queue, message, request_hash, due_at, due_at - interval '10 seconds'
    FROM request WHERE NOT EXISTS (SELECT FROM ended)
    ON CONFLICT (job_id) DO NOTHING
    RETURNING queue, give_at)
SELECT 'new' AS outcome,
    CASE WHEN give_at <= clock_timestamp() THEN CAST(pg_notify('job_outbox', queue) AS text) END AS woken
FROM promised
UNION ALL
SELECT CASE WHEN known.job_name = request.job_name AND known.request_hash = request.request_hash
    THEN 'duplicate' ELSE 'conflict' END, NULL
FROM request, (
    SELECT job_name, request_hash FROM ended
    UNION ALL SELECT job_name, request_hash FROM arqonce.outbox WHERE job_id = (SELECT job_id FROM request)) AS known
ORDER BY outcome LIMIT 1
"""
"""Returns ``new``, ``duplicate`` or ``conflict``; no row if another transaction inserted the key concurrently.

A job is written into Redis 10 s before it is due: it starts on time although a relay polls every 2 s, and Redis does
not hold jobs that are due next month. PostgreSQL sends the notification at the commit. It serializes all commits that
notify (thousands a second; one transaction may promise many jobs)."""

_PROMISE_UNIQUE = """
WITH request AS (
    SELECT CAST(:job_id AS text) AS job_id, CAST(:job_name AS text) AS job_name, CAST(:queue AS text) AS queue,
        decode(CAST(:message AS text), 'hex') AS message, decode(CAST(:request_hash AS text), 'hex') AS request_hash,
        to_timestamp(CAST(CAST(:due_ms AS text) AS bigint) / 1000.0) AS due_at,
        decode(CAST(:unique_name AS text), 'hex') AS unique_name,
        clock_timestamp() + CAST(CAST(:window_ms AS text) AS bigint) * interval '1 ms' AS unique_until),
first AS (
    INSERT INTO arqonce.unique_requests AS earlier (name, job_id, until)
    SELECT unique_name, job_id, unique_until FROM request
    ON CONFLICT (name) DO UPDATE SET job_id = excluded.job_id, until = excluded.until
        WHERE earlier.until <= clock_timestamp()
    RETURNING job_id),
promised AS (
    INSERT INTO arqonce.outbox (job_id, job_name, queue, message, request_hash, due_at, give_at)
    SELECT job_id, job_name, queue, message, request_hash, due_at, due_at - interval '10 seconds'
    FROM request WHERE EXISTS (SELECT FROM first)
    RETURNING job_id, queue, give_at)
SELECT job_id,
    CASE WHEN give_at <= clock_timestamp() THEN CAST(pg_notify('job_outbox', queue) AS text) END AS woken
FROM promised
UNION ALL
SELECT earlier.job_id, NULL FROM arqonce.unique_requests AS earlier, request
WHERE earlier.name = request.unique_name AND earlier.until > clock_timestamp() AND NOT EXISTS (SELECT FROM first)
"""
"""Returns the id of the request's job, which is ours if the request is new; no row if another transaction promised an
equal request concurrently. Two transactions that promise equal requests wait for each other."""

_PROMISE_MANY = """
WITH request AS MATERIALIZED (
    SELECT asked.*, coalesce(
        (SELECT CASE WHEN known.job_name = asked.job_name AND known.request_hash = asked.request_hash
            THEN 'duplicate' ELSE 'conflict' END FROM arqonce.receipts AS known WHERE known.job_id = asked.job_id),
        (SELECT CASE WHEN known.job_name = asked.job_name AND known.request_hash = asked.request_hash
            THEN 'duplicate' ELSE 'conflict' END FROM arqonce.dead_jobs AS known WHERE known.job_id = asked.job_id)
        ) AS ended
    FROM (SELECT job_id, job_name, decode(message, 'hex') AS message, decode(request_hash, 'hex') AS request_hash,
            number
        FROM unnest(CAST(:job_ids AS text[]), CAST(:job_names AS text[]), CAST(:messages AS text[]),
            CAST(:request_hashes AS text[])) WITH ORDINALITY AS sent (job_id, job_name, message, request_hash, number)
        ) AS asked),
promised AS (
    INSERT INTO arqonce.outbox (job_id, job_name, queue, message, request_hash, due_at, give_at)
    SELECT job_id, job_name, CAST(:queue AS text), message, request_hash, due_at, due_at - interval '10 seconds'
    FROM request, to_timestamp(CAST(CAST(:due_ms AS text) AS bigint) / 1000.0) AS due_at
    WHERE ended IS NULL
    ON CONFLICT (job_id) DO NOTHING
    RETURNING job_id, queue, give_at),
woken AS (SELECT pg_notify('job_outbox', queue) FROM promised WHERE give_at <= clock_timestamp() LIMIT 1)
SELECT string_agg(coalesce(ended, CASE WHEN promised.job_id IS NOT NULL THEN 'new' END,
        (SELECT CASE WHEN known.job_name = request.job_name AND known.request_hash = request.request_hash
            THEN 'duplicate' ELSE 'conflict' END FROM arqonce.outbox AS known WHERE known.job_id = request.job_id),
        'again'), ' ' ORDER BY number) AS outcomes,
    (SELECT count(*) FROM woken) AS woken
FROM request LEFT JOIN promised ON promised.job_id = request.job_id
"""
"""The same for many jobs with ids of their own: their outcomes as words, in order; ``again`` instead of no row.

Looks each id up by itself: a join planned while the tables were empty would scan them whole. Inserts in the order
given, which is that of ids, so that two callers with the same keys wait for each other and do not deadlock. For one job
the other statement takes two thirds of the time."""


def promising(queue: str | None, parent: RunningJob | None) -> Sending:
    """Return what makes the span of promises to this queue, by default that of the running job.

    Raises:
        InvalidMessageError: no queue may have that name.
    """
    return sending("promise", _queue_for(queue, parent))


def _queue_for(queue: str | None, parent: RunningJob | None) -> str:
    return require_queue(queue if queue is not None else QUEUE if parent is None else parent.queue)


class Promises(Generic[ResultT]):
    """Jobs that are promised together: what is sent for them, and what came back."""

    def __init__(  # noqa: PLR0913 - the parts of promises
        self,
        request: Request[ResultT],
        hashes: Sequence[bytes],
        names: Sequence[bytes],
        *,
        keys: frozenset[str | None],
        queue: str,
        ledger: str,
    ) -> None:
        """Take what ``steps`` has made."""
        self._request = request
        self._hashes = hashes
        self._names = names
        self._keys = keys
        self._queue = queue
        self._ledger = ledger
        self._ids = list(self._request.ids)
        self._outcomes: list[str | None] = [None] * len(self._ids)
        self._sent: Sequence[int] = ()

    @classmethod
    def steps(  # noqa: PLR0913 - the options of enqueue_in
        cls,
        payloads: Iterable[Payload[ResultT]],
        keys: Sequence[str | None] | None,
        *,
        delay: timedelta | None,
        at: datetime | None,
        unique_for: timedelta | None,
        expires: timedelta | datetime | None,
        queue: str | None,
        schema: str | None,
        parent: RunningJob | None,
        sending: Sending,
    ) -> "Generator[None, None, Promises[ResultT]]":
        """Validate and encode the jobs, one in each step. Those of a running job are its follow-ups.

        Raises:
            InvalidMessageError: a payload, key, time, queue or size is invalid.
            ValueError: the ledger's schema may not have that name.
        """
        request = yield from Request.steps(
            payloads,
            keys,
            delay=delay,
            at=at,
            unique_for=unique_for,
            expires=expires,
            parent=parent,
            sending=sending,
        )
        own = _queue_for(queue, parent)
        ledger = schema if schema is not None else LEDGER if parent is None else parent.ledger
        hashes, names = list[bytes](), list[bytes]()
        for payload in request.payloads:
            hashes.append(request_hash(payload))
            if request.window_ms is not None:
                names.append(unique_name(payload, own))
            yield
        return cls(request, hashes, names, keys=frozenset(keys or ()), queue=own, ledger=ledger)

    def rounds(self) -> Iterator[tuple[str, Parameters]]:
        """Yield each statement to send, and its parameters; after each, ``note`` its outcomes."""
        ids = self._request.ids
        locked = ids if self._request.window_ms is None else self._names
        first_of = {job_id: at for at, job_id in reversed(list(enumerate(ids)))}
        firsts = sorted(first_of.values(), key=lambda at: (locked[at], at))
        for _ in range(_TRIES):
            waiting = [at for at in firsts if self._outcomes[at] is None]
            for part in self._parts(waiting):
                self._sent = part
                statement, parameters = self._many() if len(self._sent) > 1 else self._one(self._sent[0])
                yield in_namespace(statement, self._ledger), parameters
        for at, job_id in enumerate(ids):
            if (first := first_of[job_id]) != at:
                self._outcomes[at] = self._outcome_beside(first, at)

    def _parts(self, waiting: Sequence[int]) -> Iterator[Sequence[int]]:
        """Split the jobs into statements; unique requests need one each."""
        sizes = [len(self._request.messages[at]) for at in waiting]
        most = _MOST_JOBS if self._request.window_ms is None else 1
        return (waiting[part] for part in cut_calls(sizes, most_jobs=most, most_bytes=_MOST_BYTES))

    def _one(self, at: int) -> tuple[str, Parameters]:
        request = self._request
        parameters = {
            "job_id": request.ids[at],
            "job_name": request.payloads[at].job_name,
            "queue": self._queue,
            "message": request.messages[at].hex(),  # all as text: drivers differ in how they send bytes and numbers
            "request_hash": self._hashes[at].hex(),
            "due_ms": str(request.due_ms),
        }
        if request.window_ms is None:
            return _PROMISE, parameters
        parameters["unique_name"] = self._names[at].hex()
        parameters["window_ms"] = str(request.window_ms)
        return _PROMISE_UNIQUE, parameters

    def _many(self) -> tuple[str, Parameters]:
        request = self._request
        parameters = {
            "job_ids": [request.ids[at] for at in self._sent],
            "job_names": [request.payloads[at].job_name for at in self._sent],
            "messages": [request.messages[at].hex() for at in self._sent],
            "request_hashes": [self._hashes[at].hex() for at in self._sent],
            "queue": self._queue,
            "due_ms": str(request.due_ms),
        }
        return _PROMISE_MANY, parameters

    def _outcome_beside(self, first: int, at: int) -> str:
        """Return the outcome of a job whose key an earlier one of the same call has."""
        names = {self._request.payloads[one].job_name for one in (first, at)}
        is_same = len(names) == 1 and self._hashes[first] == self._hashes[at]
        return "duplicate" if is_same and self._outcomes[first] in {"new", "duplicate"} else "conflict"

    def note(self, outcomes: str | None) -> None:
        """Note the outcomes of what was sent last: words, or the id of a unique request's job."""
        if outcomes is not None and self._request.window_ms is not None:
            (at,) = self._sent
            self._outcomes[at] = "new" if outcomes == self._ids[at] else "duplicate"
            self._ids[at] = outcomes
            return
        for at, outcome in zip(self._sent, (outcomes or _AGAIN).split(), strict=True):
            self._outcomes[at] = None if outcome == _AGAIN else outcome

    def promised(self) -> list[Promised[ResultT]]:
        """Return the promises, in order.

        Raises:
            KeyConflictError: keys were used for other requests.
        """
        outcomes = list(zip(self._ids, self._request.payloads, self._outcomes, strict=True))
        if taken := [job_id for job_id, _, outcome in outcomes if outcome not in {"new", "duplicate"}]:
            raise _conflict(taken, of=len(outcomes))
        hashes = zip(outcomes, self._hashes, strict=True)
        return [
            Promised(job_id, outcome == "new", payload.result_type(), self._mark(job_id, payload, request))
            for (job_id, payload, outcome), request in hashes
        ]

    def _mark(self, job_id: str, payload: Payload[ResultT], request: bytes) -> str | None:
        """Return the request's mark if its key may be in use elsewhere."""
        return request_mark(payload.job_name, request_tag(request)) if job_id in self._keys else None


def _conflict(taken: Sequence[str], *, of: int) -> KeyConflictError:
    cure = "give each request its own key (or, if the earlier job is dead, discard it: see the command dead show)"
    if of == 1:
        return KeyConflictError(f"the key {taken[0]!r} was used for another request: {cure}")
    named = ", ".join(map(repr, taken[:_MOST_NAMED])) + (", ..." if len(taken) > _MOST_NAMED else "")
    return KeyConflictError(f"{len(taken)} of {of} keys were used for other requests, {named}: {cure}")
