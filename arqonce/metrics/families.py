"""The metrics: their names, labels, buckets and meanings. ``docs/metrics.md`` is checked against this list.

Names follow Prometheus: base units, ``_total`` for counters. Label values are bounded: ``kind`` is a name that the
worker knows, or ``<unknown>``; beyond ``store.MOST_SERIES`` sets of labels each further one is ``<other>``.
"""

from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]


class Family(NamedTuple):
    """One metric, with all its sets of labels."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, ascending, without the infinite one."""

    @property
    def width(self) -> int:
        """How many numbers one set of labels has: of a histogram one for each bucket, and the sum."""
        return len(self.buckets) + 2 if self.kind == "histogram" else 1


_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""OpenTelemetry's buckets for messaging, 5 ms to 10 s, less three of them, and more at both ends: a job may be done in
3 ms, and wait for half an hour."""

_LAG = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)

_JOBS = (1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0)

_KIND = ("kind",)
_FAILED = ("kind", "code")
_SERVER = ("server",)
_QUEUE = ("queue",)

CLAIMED = Family("arqonce_jobs_claimed_total", "counter", "Jobs claimed; each attempt counts.", _KIND)
SUCCEEDED = Family("arqonce_jobs_succeeded_total", "counter", "Jobs that ended with a result.", _KIND)
REFUSED = Family(
    "arqonce_jobs_refused_total", "counter", "Jobs that ended with a failure that a handler chose, or were aborted.",
    _FAILED,
)  # fmt: skip
DEAD = Family("arqonce_jobs_dead_total", "counter", "Jobs that failed for good for a reason nobody chose.", _FAILED)
RETRIED = Family("arqonce_jobs_retried_total", "counter", "Attempts that failed and are repeated.", _KIND)
UNCOUNTED = Family(
    "arqonce_attempts_uncounted_total",
    "counter",
    "Attempts that an outage broke off: repeated, and not counted.",
    _KIND,
)
GIVEN_BACK = Family("arqonce_jobs_given_back_total", "counter", "Claimed jobs that were put back, not started.", _KIND)
PARKED = Family("arqonce_jobs_parked_total", "counter", "Claimed jobs that wait for a permit of a limit.", _KIND)
WAIT = Family("arqonce_job_wait_seconds", "histogram", "From when a job was due until it was claimed.", _KIND, _SECONDS)
RUN = Family(
    "arqonce_run_duration_seconds", "histogram", "One run: the transaction of a job or a batch.", _KIND, _SECONDS
)
COMPLETION = Family(
    "arqonce_job_completion_seconds",
    "histogram",
    "From when a job was due until its end was committed.",
    _KIND,
    _SECONDS,
)
RUN_JOBS = Family("arqonce_run_jobs", "histogram", "Jobs of one run: the size of batches.", _KIND, _JOBS)

IN_PROGRESS = Family("arqonce_jobs_in_progress", "gauge", "Jobs that this process has claimed and not yet recorded.")
SLOTS = Family("arqonce_slots", "gauge", "Runs that this process may have at once.")
SLOTS_USED = Family("arqonce_slots_used", "gauge", "Runs that this process has now.")
LEASES_LOST = Family("arqonce_leases_lost_total", "counter", "Ended jobs that another worker had claimed meanwhile.")
ANSWERED = Family("arqonce_receipts_answered_total", "counter", "Deliveries answered by the receipt of an earlier one.")
OUTAGE = Family(
    "arqonce_outage_seconds_total", "counter", "Time that processes have waited for a server, added up.", _SERVER
)
SERVER_UP = Family("arqonce_server_up", "gauge", "1 while the process can use the server, 0 while it waits.", _SERVER)
READY = Family("arqonce_ready", "gauge", "1 for each check of /readyz that holds, 0 for one that does not.", ("check",))
LAG = Family("arqonce_event_loop_lag_seconds", "histogram", "How late the loop ran a timer of 250 ms.", (), _LAG)
LONGEST_BLOCK = Family(
    "arqonce_event_loop_longest_block_seconds", "gauge", "The longest lag of the last one to two minutes."
)
CONNECTIONS = Family("arqonce_database_connections", "gauge", "Connections of the pool: idle or used.", ("state",))
MOST_CONNECTIONS = Family("arqonce_database_connections_max", "gauge", "Most connections that the pool may have.")

GIVEN = Family("arqonce_relay_given_total", "counter", "Promised jobs that the relay has written into Redis.")
GIVEN_AGAIN = Family(
    "arqonce_relay_given_again_total", "counter", "Of these, jobs that were written again because Redis was emptied."
)
EXPIRED = Family(
    "arqonce_relay_expired_total", "counter", "Promised jobs that were too old to run and are dead letters."
)
EPOCHS = Family("arqonce_redis_epochs_total", "counter", "How often the relay found Redis emptied or replaced.")

SLOTS_OF_SCHEDULES = Family(
    "arqonce_schedule_slots_total", "counter", "Slots of schedules: promised, or why they were skipped.",
    ("schedule", "outcome"),
)  # fmt: skip

WAITING = Family("arqonce_queue_waiting", "gauge", "Jobs that are due, not running and not paused.", _QUEUE)
DEFERRED = Family("arqonce_queue_deferred", "gauge", "Jobs that are due later, or wait for their next attempt.", _QUEUE)
RUNNING = Family("arqonce_queue_in_progress", "gauge", "Jobs that any worker has claimed.", _QUEUE)
OLDEST = Family(
    "arqonce_queue_oldest_waiting_seconds", "gauge", "How long the oldest waiting job has been due; 0 if none.", _QUEUE
)
WAITING_FOR_PERMIT = Family(
    "arqonce_queue_parked", "gauge", "Of those that wait, jobs that wait for a permit of a limit.", _QUEUE
)
HELD = Family("arqonce_queue_held", "gauge", "Jobs that would wait if nothing were paused.", _QUEUE)
PAUSED = Family("arqonce_queue_paused", "gauge", "1 while the whole queue is paused, else 0.", _QUEUE)
WORKERS = Family("arqonce_queue_workers", "gauge", "Live workers of this library that serve the queue.", _QUEUE)
SERVED = Family("arqonce_queue_served", "gauge", "1 while a worker, ours or arq's, serves the queue, else 0.", _QUEUE)
PROMISED = Family("arqonce_promised_jobs", "gauge", "Jobs promised in PostgreSQL that have not ended.", _QUEUE)
OVERDUE = Family("arqonce_promised_overdue", "gauge", "Of these, jobs that a relay should have given 15 s ago.", _QUEUE)
LETTERS = Family("arqonce_dead_letters", "gauge", "Dead letters in PostgreSQL.", _QUEUE)
CLOCK = Family(
    "arqonce_clock_offset_seconds", "gauge", "How far the server's clock is ahead of this one, at least.", _SERVER
)

BUILD = Family("arqonce_build_info", "gauge", "Always 1: what runs here.", ("version", "python", "role"))
PROCESSES = Family("arqonce_processes", "gauge", "Worker processes of the supervisor that run.")
SILENCE = Family("arqonce_process_silence_seconds", "gauge", "For how long the event loop of a process has not turned.")
RESTARTS = Family(
    "arqonce_process_restarts_total",
    "counter",
    "Processes that have ended and are started again: exit, signal, hung.",
    ("reason",),
)
STARTED = Family("process_start_time_seconds", "gauge", "When the process started, in seconds since 1970.")
MEMORY = Family("process_resident_memory_bytes", "gauge", "Resident memory.")
CPU = Family("process_cpu_seconds_total", "counter", "Time of CPUs, of user and system.")

REQUESTS = Family(
    "http_server_request_duration_seconds", "histogram", "Requests to users-web: OpenTelemetry's name and labels.",
    ("http_request_method", "http_route", "http_response_status_code"), _SECONDS[2:13],
)  # fmt: skip
OPEN_CONNECTIONS = Family("http_server_connections", "gauge", "Open connections of users-web.")
REFUSED_CONNECTIONS = Family("http_server_connections_refused_total", "counter", "Connections beyond the limit.")

FAMILIES: tuple[Family, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Family))
"""All of them, in the order of this file and of the text."""

BY_NAME = {family.name: family for family in FAMILIES}
