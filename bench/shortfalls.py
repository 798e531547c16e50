"""Why a goal of ``reach`` may be missed, from profiles: the report says it of those that were not met.

CPU times are those of a machine on which a loop of ten million additions takes 0.65 s.
"""

_FLUSH = (
    "In one process without any queue, an ordinary handler costs 0.37 ms of CPU in a session that commits 50 users "
    "together, and 0.72 ms in a transaction of its own: nearly all of it is SQLAlchemy's flush of one object, with a "
    "write to the driver's socket and a switch of greenlets."
)

WHY = {
    "the same with shares_transaction against no queue": (
        f"{_FLUSH} So twice the rate would leave nothing for the claim, the message, a session of each job's own, the "
        "receipt and the record, which take 0.15 to 0.2 ms."
    ),
    "the same with shares_transaction against tuned arq": (
        f"{_FLUSH} Tuned arq takes 1.3 ms, so 3.5 times its rate would leave nothing for all else."
    ),
    "no-op, one process, against the fastest peer": (
        "Of 36 µs of CPU a job, two fifths are what arq documents of a function: a task with a context of its own, a "
        "time limit, ctx, hooks. A quarter is the message and the result in arq's format, a fifth the claim and the "
        "record, of which Redis has 25 µs of work more."
    ),
    "create_user against PgQueuer with the same set-based body by hand": (
        "Of 45 µs of CPU a job, a third is the transaction with its two statements, a fifth reads and checks the "
        "payload, a fifth checks, writes and hashes result and receipt, and a sixth claims. The body by hand has no "
        "payload class, no receipt and no result."
    ),
    "create_user against tuned arq": "See the line on PgQueuer: what is left is spread over checks and receipts.",
    "ordinary handler against the same coroutine with no queue": (
        "Of the CPU time of the worker's thread, SQLAlchemy's flush of the one object takes 39 %, the event loop with "
        "the sockets 24 %, begin and commit with the receipt 17 %: the coroutine without a queue pays for nearly all "
        "of that, too. Ours are the attempt (payload, hash of the request, result) with 15 % and claim and record with "
        "5 %."
    ),
    "idle, p50 against the quickest peer": (
        "The quickest peer pops from a list, so that a job is lost with its worker. A claim here is a script that "
        "takes the job, its lease and its message, and the commit has a receipt."
    ),
    "idle worker, Redis commands": (
        "One a second asks for pauses, two in three seconds keep the watch of the queue, and one in two finds out "
        "whether Redis was emptied or replaced: the idle workers of a fleet share one such watch."
    ),
    "time per job, with 10 million dead letters and 10 million promises that are not due against none": (
        "Runs of this part differ more than that: 0.9 to 1.6 were measured. No statement of a claim reads these rows."
    ),
    "loaded to 70 %, a single urgent job, p99": (
        "Producer and servers share two processors with the worker: beside them it manages 9,000 other jobs/s, so 70 % "
        "of what it does without a producer is nearly all. There half of an urgent job's 80 ms (p50) is waiting for "
        "one of two batches to end, a fifth the claim, and a third its run between the batches' turns. With 3,000 "
        "other jobs/s its p99 is 19 ms. A claim of urgent jobs alone while two batches run, and shorter turns of "
        "batches, were tried: p50 stayed as it was."
    ),
    "first job after users-worker run": (
        "Two thirds of it are imports: of their time SQLAlchemy takes 35 %, this project 20 %, pydantic 11 %, redis-py "
        "5 %, asyncpg 3 %. A tenth is the first connections with what is checked before a job may run."
    ),
    "memory of an idle worker": "Half of it is the code of SQLAlchemy and pydantic, a quarter Python and uvloop.",
}
"""By the goal's title."""
