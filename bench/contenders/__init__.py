"""All contenders. Each module has ``work(target, variant)`` and ``open_producer(target, variant)``.

A module is loaded only in its own environment. Its docstring states the contender's settings.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One row of the tables."""

    name: str
    module: str
    title: str
    variant: str = ""
    environment: Literal["own", "bench", "bench-taskiq"] = "own"
    role: Literal["ours", "peer", "floor"] = "peer"
    is_set_based: bool = False
    package: str = ""
    """Package whose version is printed."""

    drain: int = 1000
    """Jobs in the first run of ``create_user``; later runs have as many as the intended duration needs."""

    is_of_one_part: bool = False
    """Whether it takes part only where it is named."""

    is_slow: bool = False
    """Whether jobs start up to half a second after the enqueue: fewer latency samples, at longer intervals."""


def _all(*contenders: Contender) -> dict[str, Contender]:
    return {contender.name: contender for contender in contenders}


_CONTENDERS = "bench.contenders"

CONTENDERS = _all(
    Contender(
        name="ours", module=f"{_CONTENDERS}.ours", title="users-worker", role="ours", drain=5000
    ),
    Contender(
        name="ours-no-receipts",
        module=f"{_CONTENDERS}.ours",
        title="users-worker without receipts",
        variant="no-receipts",
        role="ours",
        drain=5000,
    ),
    Contender(
        name="ours-metrics",
        module=f"{_CONTENDERS}.ours",
        title="users-worker with metrics",
        variant="metrics",
        role="ours",
        drain=5000,
    ),
    Contender(
        name="ours-limited",
        module=f"{_CONTENDERS}.ours",
        title="users-worker, of a limited kind",
        variant="limited",
        role="ours",
        drain=5000,
    ),
    Contender(
        name="ours-queues",
        module=f"{_CONTENDERS}.ours",
        title="users-worker on three queues",
        variant="queues",
        role="ours",
        drain=5000,
    ),
    Contender(
        name="ours-session",
        module=f"{_CONTENDERS}.ours",
        title="users-worker, ordinary handler (a session per job)",
        variant="session",
        role="ours",
        drain=1500,
    ),
    Contender(
        name="ours-shared",
        module=f"{_CONTENDERS}.ours",
        title="users-worker, ordinary handler, shares_transaction",
        variant="shared",
        role="ours",
        drain=4000,
    ),
    Contender(
        name="ours-urgent",
        module=f"{_CONTENDERS}.ours",
        title="users-worker, an urgent queue before the other one",
        variant="urgent",
        role="ours",
        is_of_one_part=True,
    ),
    Contender(
        name="arq",
        module=f"{_CONTENDERS}.plain_arq",
        title="arq, defaults",
        package="arq",
        drain=600,
        is_slow=True,
    ),
    Contender(
        name="arq-tuned", module=f"{_CONTENDERS}.plain_arq", title="arq, tuned", variant="tuned", package="arq",
        drain=1500,
    ),
    Contender(
        name="taskiq-list", module=f"{_CONTENDERS}.taskiq_redis", title="taskiq, list broker", variant="list",
        environment="bench-taskiq", package="taskiq", drain=1500,
    ),
    Contender(
        name="taskiq-stream", module=f"{_CONTENDERS}.taskiq_redis", title="taskiq, stream broker",
        variant="stream", environment="bench-taskiq", package="taskiq", drain=1500,
    ),
    Contender(
        name="saq", module=f"{_CONTENDERS}.saq_redis", title="SAQ", environment="bench", package="saq", drain=1500
    ),
    Contender(
        name="streaq", module=f"{_CONTENDERS}.streaq_redis", title="streaQ", environment="bench", package="streaq",
        drain=1000,
    ),
    Contender(
        name="procrastinate", module=f"{_CONTENDERS}.procrastinate_postgres", title="procrastinate",
        environment="bench", package="procrastinate", drain=800,
    ),
    Contender(
        name="pgqueuer", module=f"{_CONTENDERS}.pgqueuer_postgres", title="PgQueuer", environment="bench",
        package="pgqueuer", drain=2000,
    ),
    Contender(
        name="pgqueuer-sets", module=f"{_CONTENDERS}.pgqueuer_postgres", title="PgQueuer, set-based body by hand",
        variant="sets", environment="bench", package="pgqueuer", drain=10_000, is_set_based=True,
    ),
    Contender(
        name="no-queue-10", module=f"{_CONTENDERS}.floors", title="the same coroutine, no queue, 10 at once",
        variant="session 10", role="floor", drain=1500,
    ),
    Contender(
        name="no-queue-50", module=f"{_CONTENDERS}.floors", title="the same coroutine, no queue, 50 at once",
        variant="session 50", role="floor", drain=1500,
    ),
    Contender(
        name="asyncpg", module=f"{_CONTENDERS}.floors", title="bare asyncpg, one prepared INSERT per job",
        variant="asyncpg 10", role="floor", drain=10_000,
    ),
    Contender(
        name="sets-of-100", module=f"{_CONTENDERS}.floors", title="bare asyncpg, sets of 100 rows",
        variant="sets 10", role="floor", drain=50_000,
    ),
)  # fmt: skip
