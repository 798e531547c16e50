"""What several processes show on the one port of ``run --processes N``, and what becomes of one that hangs."""

import asyncio
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

from arqonce import JobClient
from jobs import CreateUser
from tests.arqonce.operations.kinds import NAME, Answer, Block
from tests.arqonce.operations.scrape import Figures, ask, port_of, scrape, value
from tests.arqonce.process.test_supervisor import _children, _events
from tests.conftest import StartWorker, wait_until
from tests.faults.observe import Sessions

RUN = (sys.executable, "-m", "worker", "run", "--processes", "2")
SOON = timedelta(seconds=30)


def _count(figures: Figures, name: str, **labels: str) -> float:
    return value(figures, f"arqonce_{name}", **labels) or 0


async def test_counters_survive_the_processes_that_have_counted(
    start_worker: StartWorker, client: JobClient, sessions: Sessions
) -> None:
    """Nothing is lost, counted twice, or ever falls, whoever dies; and only processes that run have gauges."""
    assert sessions is not None
    worker = start_worker(*RUN, OPS_PORT="0")
    port = port_of(worker)
    seen = [0.0]
    for round_, victim in enumerate((0, 1, 2)):
        names = [f"User {round_} {at}" for at in range(40)]
        handles = await client.enqueue_many([CreateUser(name=name) for name in names])
        await asyncio.gather(*(handle.result(timeout=SOON) for handle in handles))
        await asyncio.to_thread(wait_until, lambda: _count(scrape(port), "processes") == 2, 20)
        os.kill(_children(worker)[victim], signal.SIGKILL)
        # While the supervisor takes over what the dead one has counted.
        figures = [await asyncio.to_thread(scrape, port) for _ in range(10)]
        seen += [_count(found, "jobs_succeeded_total") for found in figures]

    assert seen == sorted(seen)
    assert seen[-1] == 120
    await asyncio.to_thread(wait_until, lambda: _count(scrape(port), "processes") == 2, 20)
    last = scrape(port)
    assert _count(last, "process_restarts_total", reason="signal") == 3
    assert {dict(labels).get("process") for _, labels in last} == {None, "1", "2"}
    assert [ask(port, path).status for path in ("/livez", "/readyz", "/queue.json")] == [200, 200, 200]
    assert worker.stop() == 0


async def test_a_process_that_hangs_is_restarted_and_the_log_says_where_it_hung(
    start_worker: StartWorker, client: JobClient, sessions: Sessions, tmp_path: Path
) -> None:
    """After WORKER_HANG_LIMIT; the port answers all the while, and the jobs of others go on."""
    assert sessions is not None
    worker = start_worker(*RUN, OPS_PORT="0", WORKER_REGISTRY=NAME, WORKER_LEASE="1s", WORKER_HANG_LIMIT="6s")
    port = port_of(worker)
    blocking = await client.enqueue(Block(seconds=60, marker=str(tmp_path / "marker")))
    await asyncio.to_thread(wait_until, lambda: "the event loop is blocked" in worker.log, 20)

    handles = await client.enqueue_many([Answer(how="well") for _ in range(3)])
    await asyncio.gather(*(handle.result(timeout=SOON) for handle in handles))
    await asyncio.to_thread(wait_until, lambda: _events(worker, "killing") != [], 30)

    (killed,) = _events(worker, "killing")
    stacks = killed["stacks"]
    assert isinstance(stacks, list)
    assert any("operations/kinds.py" in line and line.endswith(" in block") for line in stacks)
    await asyncio.to_thread(wait_until, lambda: _count(scrape(port), "process_restarts_total", reason="hung") == 1, 20)
    await blocking.result(timeout=SOON)
    assert worker.stop() == 0
