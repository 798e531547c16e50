"""How long a job waits for an idle worker."""

import statistics
import time
from datetime import timedelta

from arqonce import JobClient
from jobs import CreateUser
from tests.conftest import StartWorker
from tests.faults.observe import Sessions
from tests.worker.test_end_to_end import BOTH, COMMANDS


@BOTH
async def test_an_idle_worker_starts_a_job_soon(
    command: str, start_worker: StartWorker, client: JobClient, sessions: Sessions
) -> None:
    """Arq looks every half second, and so takes a quarter on average."""
    assert sessions is not None
    start_worker(*COMMANDS[command])
    took = []
    for number in range(15):
        started = time.monotonic()
        await (await client.enqueue(CreateUser(name=f"User {number}"))).result(timeout=timedelta(seconds=20))
        took.append(time.monotonic() - started)

    assert statistics.median(took) < 0.2  # about 50 ms on a quiet machine
