"""Says how a job is put into Redis and its answer read, in a form that programs can follow. Opens no connection."""

from typing import Any

from jobs.codec import MAX_BYTES
from jobs.messages import ENQUEUE
from jobs.wire import ABORT_KEY, EXPIRY, IN_PROGRESS_KEY, JOB_KEY, QUEUE, RESULT_KEY, to_ms

_JOB = f"{JOB_KEY}{{job_id}}"
_RESULT = f"{RESULT_KEY}{{job_id}}"

_SCRIPT_NOTE = """\
For EVAL. A job whose id is queued, runs or has a result is left as it is. Answers a list: 1 for a job that was added, \
0 for one that was not. Several jobs: their keys, then the queue; their messages last, in the same order."""


def describe_redis() -> dict[str, Any]:
    """Return keys, limits, and the commands and the script to enqueue, with names in braces for what is filled in."""
    return {
        "keys": {
            "queue": QUEUE,
            "job": _JOB,
            "result": _RESULT,
            "in_progress": f"{IN_PROGRESS_KEY}{{job_id}}",
            "abort": ABORT_KEY,
        },
        "names": {
            "job_id": "Random, or the caller's idempotency key.",
            "message": "The job, as JSON in UTF-8.",
            "due_ms": "When the job is due, in ms since 1970.",
            "expiry_ms": "How long the message is kept, in ms: message_expiry_ms and the time until it is due.",
        },
        "message_expiry_ms": to_ms(EXPIRY),
        "job_id": {"type": "string", "pattern": "^[!-~]{1,200}$"},
        "max_bytes": MAX_BYTES,
        "enqueue": {
            "commands": [
                ["MULTI"],
                ["SET", _JOB, "{message}", "PX", "{expiry_ms}"],
                ["ZADD", QUEUE, "{due_ms}", "{job_id}"],
                ["EXEC"],
            ],
            "commands_note": "For a random job_id: with one that was used, the message of a queued job is replaced.",
            "script": ENQUEUE.strip(),
            "script_keys": [_JOB, QUEUE],
            "script_arguments": ["{due_ms}", "{expiry_ms}", "{message}"],
            "script_note": _SCRIPT_NOTE,
        },
        "result": {"commands": [["GET", _RESULT]], "note": "Nil until the job has ended."},
    }
