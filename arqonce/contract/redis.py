"""Describes how to enqueue a job in Redis and read its result, in machine-readable form. Opens no connection."""

from typing import Any

from arqonce.client.requests import ENQUEUE
from arqonce.wire.bounds import MAX_BYTES
from arqonce.wire.keys import ABORT_KEY, EXPIRY, IN_PROGRESS_KEY, JOB_KEY, QUEUE, RESULT_KEY, to_ms

_JOB = f"{JOB_KEY}{{job_id}}"
_RESULT = f"{RESULT_KEY}{{job_id}}"

_SCRIPT_NOTE = """\
For EVAL. Answers a list: 1 for a job that is NEW and was added; 0 for a DUPLICATE, whose id is queued, runs or has a \
result, and which was dropped, also if it is another request: give each request an id of its own. Several jobs, due at \
one time: their keys, then the queue; their messages last, in the same order."""


def describe_redis() -> dict[str, Any]:
    """Return keys, limits, and the commands and script to enqueue. Names in braces are placeholders."""
    return {
        "keys": {
            "queue": QUEUE,
            "job": _JOB,
            "result": _RESULT,
            "in_progress": f"{IN_PROGRESS_KEY}{{job_id}}",
            "abort": ABORT_KEY,
        },
        "names": {
            "job_id": "Random, or the caller's idempotency key: one for each request.",
            "message": "The job, as JSON in UTF-8.",
            "due_ms": "When the job is due, in ms since 1970: with seconds it runs at once, with microseconds never.",
            "expiry_ms": "How long the message is kept, in ms: message_expiry_ms plus the delay, or plus the time "
            "until xt if that is later.",
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
            "commands_note": "For a random job_id only: with a used one, the message of a queued job is replaced.",
            "script": ENQUEUE.strip(),
            "script_keys": [_JOB, QUEUE],
            "script_arguments": ["{due_ms}", "{expiry_ms}", "{message}"],
            "script_note": _SCRIPT_NOTE,
        },
        "result": {"commands": [["GET", _RESULT]], "note": "Nil until the job has ended."},
    }
