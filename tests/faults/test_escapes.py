"""What handlers raise that ends programs is their jobs' failure. With real workers."""

import asyncio
from datetime import timedelta

from arqonce import JobClient
from arqonce.failures import JobFailedError
from tests.conftest import StartWorker
from tests.faults.escapes import HARMLESS, HOW, NAME, Misbehave, MisbehaveTogether
from tests.faults.observe import Sessions, attempts, letters, users_by_name

SOON = timedelta(seconds=40)


async def test_whatever_a_handler_raises_is_its_jobs_failure(
    start_worker: StartWorker, client: JobClient, sessions: Sessions
) -> None:
    """Retried, dead with the true reason, and no neighbour, no worker and no other attempt suffers by it."""
    worker = start_worker(WORKER_REGISTRY=NAME)
    single = [Misbehave(how=how, name=how) for how in [*HOW, *HARMLESS]]
    batch = [MisbehaveTogether(how=how, name=f"{how} together") for how in [*HOW, *HARMLESS]]
    handles = await client.enqueue_many([*single, *batch])

    answers = await asyncio.gather(*(handle.result(timeout=SOON) for handle in handles), return_exceptions=True)

    told = dict(zip([payload.name for payload in [*single, *batch]], answers, strict=True))
    failed = {name: answer for name, answer in told.items() if isinstance(answer, BaseException)}
    ended_well = ["well", "slowly well", *HARMLESS]
    assert sorted(set(told) - set(failed)) == sorted([*ended_well, *(f"{name} together" for name in ended_well)])
    assert await users_by_name(sessions) == dict.fromkeys(set(told) - set(failed), 1)
    assert set((await letters(sessions)).values()) == {"HandlerEscapeError", "HandlerCancelledError"}
    assert (len(await letters(sessions)), worker.process.poll()) == (len(failed), None)
    for name, words in {
        "exit": "the handler raised SystemExit: 2; a handler cannot end the worker",
        "exit with None together": "the handler raised SystemExit: None",
        "interrupt": "the handler raised KeyboardInterrupt; ",
        "own": "the handler raised OwnEnd: mine; let it raise subclasses of Exception",
        "own in a group": "BaseExceptionGroup",
        "cancels itself": "raised CancelledError though nobody had cancelled the job",
        "cancelled together": "raised CancelledError though nobody had cancelled the job",
    }.items():
        answer = failed[name]
        assert isinstance(answer, JobFailedError)
        assert words in answer.message
    assert attempts(worker) == {1}  # of those that ended well
    assert worker.stop() == 0


async def test_a_worker_whose_main_task_a_job_cancels_has_not_been_told_to_stop(
    start_worker: StartWorker, client: JobClient, sessions: Sessions
) -> None:
    """It ends in order, names the cause, and its exit code lets a supervisor start it again."""
    worker = start_worker(WORKER_REGISTRY=NAME)
    await client.enqueue(Misbehave(how="cancels all", name="Jane"))

    assert await asyncio.to_thread(worker.process.wait, 20) == 1
    assert "a job cancels tasks of others" in worker.log
    assert await users_by_name(sessions) == {"Jane": 1}
