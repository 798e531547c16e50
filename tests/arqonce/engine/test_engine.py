"""The engine alone, between a queue in memory and jobs of the test's own, on a clock that jumps."""

import asyncio
import gc
import warnings
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from arqonce.engine.engine import Engine
from arqonce.engine.idle import Bell
from arqonce.engine.options import Options
from arqonce.engine.permits import Admission, Applicant
from arqonce.engine.queue import Claimed
from arqonce.engine.run import Run
from arqonce.engine.runs import Runs
from arqonce.engine.slots import Slots
from arqonce.work import Again, AlwaysOpen, Ended, Gate, Observer, Outcome, Permit, Postponed
from tests.arqonce.engine.clock import on_its_own_clock, until
from tests.arqonce.engine.queue_in_memory import Fault, QueueInMemory
from tests.arqonce.engine.scripted_work import DONE, ScriptedJob, ScriptedWork, hang, sleep, succeed

_LEASE = timedelta(hours=1)
_SHORT_LEASE = timedelta(seconds=3)


@pytest.fixture(autouse=True)
def _plain_log() -> Iterator[None]:
    """Print no tracebacks: by default structlog takes a second for each."""
    with capture_logs():
        yield


def _build(  # noqa: PLR0913 - what differs between tests
    queue: QueueInMemory,
    work: ScriptedWork,
    *,
    slots: int = 10,
    lease: timedelta = _LEASE,
    burst: bool = False,
    most: float = float("inf"),
    gate: Gate | None = None,
) -> Engine:
    options = Options(slots=slots, lease=lease, poll=timedelta(seconds=0.5), burst=burst, most=most)
    return Engine(queue, work, options, gate=gate or AlwaysOpen(), chores=[], observer=Observer())


@asynccontextmanager
async def _running(engine: Engine) -> AsyncIterator["asyncio.Task[None]"]:
    """Run it beside the test, and close it as a worker does."""
    task = asyncio.create_task(engine.run())
    await asyncio.sleep(0.1)
    try:
        yield task
    finally:
        engine.stop()
        task.cancel()
        try:
            with suppress(asyncio.CancelledError):
                await task
        finally:
            await engine.close()


@on_its_own_clock
async def test_a_burst_runs_all_jobs_and_ends() -> None:
    """Each once, also what becomes due only later."""
    queue, work = QueueInMemory(), ScriptedWork(succeed=succeed)
    queue.enqueue("succeed", "j1", "j2")
    queue.enqueue("succeed", "later", delay=60)

    await _build(queue, work, burst=True).run()

    assert work.runs == [["j1"], ["j2"], ["later"]]
    assert (queue.results, queue.jobs) == (dict.fromkeys(["j1", "j2", "later"], b"done"), {})


async def test_an_engine_that_is_never_run_leaves_nothing_open() -> None:
    """A worker may fail between building its engine and running it."""
    with warnings.catch_warnings(record=True) as unclosed:
        warnings.simplefilter("always")

        _build(QueueInMemory(), ScriptedWork())
        gc.collect()

    assert [str(warning.message) for warning in unclosed] == []


@on_its_own_clock
async def test_a_burst_does_not_wait_for_a_lost_redis() -> None:
    """As arq's does not."""
    queue = QueueInMemory()
    queue.fault = lambda _call: Fault.UNSENT
    engine = _build(queue, ScriptedWork(), burst=True)

    with pytest.raises(RedisConnectionError):
        await engine.run()

    await engine.close()


@on_its_own_clock
async def test_a_burst_starts_at_most_so_many_jobs() -> None:
    """The others are not claimed."""
    queue, work = QueueInMemory(), ScriptedWork(sleep=sleep)
    queue.enqueue("sleep", "j1", "j2", "j3", "j4", "j5")

    await _build(queue, work, burst=True, slots=2, most=3).run()

    assert (sorted(queue.results), queue.claimed) == (["j1", "j2", "j3"], ["j1", "j2", "j3"])


@on_its_own_clock
async def test_no_more_jobs_run_than_there_are_slots() -> None:
    """Nor are more claimed: another worker may have room."""
    queue, work = QueueInMemory(), ScriptedWork(sleep=sleep)
    queue.enqueue("sleep", *map(str, range(10)))

    async with _running(_build(queue, work, slots=3)):
        claimed_at_first = len(queue.claimed)
        await until(lambda: not queue.jobs)

    assert (claimed_at_first, work.most_running, len(work.runs)) == (3, 3, 10)


@on_its_own_clock
async def test_jobs_without_a_permit_take_no_slot() -> None:
    """They are not started, hold up nobody, and are claimed again when there is a permit, in the same attempt."""
    queue, work = QueueInMemory(), ScriptedWork(sleep=sleep, succeed=succeed)
    work.permits = {"sleep": [Permit("limit:", 2, 0)]}
    queue.enqueue("sleep", *map(str, range(8)))
    queue.enqueue("succeed", "other")

    async with _running(_build(queue, work, slots=4)):
        first = list(queue.results)
        await until(lambda: not queue.jobs, seconds=2.1)

    assert (first, work.most_running) == (["other"], 3)
    assert sorted(work.attempts) == sorted([*((str(number), 1) for number in range(8)), ("other", 1)])


@on_its_own_clock
async def test_a_parked_job_that_is_claimed_again_before_that_is_known_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its permit was free again, and the answer also tells of hundreds of others, for which a second call was made."""
    queue, work = QueueInMemory(), ScriptedWork(limited=succeed)
    work.permits = {"limited": [Permit("limit:", 1, 0)]}
    queue.enqueue("limited", "j1")
    runs = Runs(work, queue, Slots[Run](2), bell=Bell(), observer=Observer())

    async def claim() -> Claimed:
        return await queue.claim(2, watch=timedelta(0), is_idle=True)

    async def park(_applicants: Sequence[Applicant]) -> list[Admission]:
        monkeypatch.undo()
        queue.jobs[b"j1"].owner = None
        await runs.start(await claim())
        return [Admission.PARKED]

    monkeypatch.setattr(queue, "take_permits", park)
    await runs.start(await claim())
    await until(lambda: bool(queue.results), seconds=5)

    assert (work.attempts, queue.results) == ([("j1", 1)], {"j1": b"done"})


@on_its_own_clock
async def test_a_batch_is_made_of_the_jobs_that_have_permits() -> None:
    """The others wait for theirs."""

    async def end_all(jobs: Sequence[ScriptedJob]) -> Sequence[Outcome | Again]:
        return [DONE] * len(jobs)

    queue, work = QueueInMemory(), ScriptedWork({"many": end_all}, many=succeed)
    work.permits = {"many": [Permit("limit:", 3, 0)]}
    queue.enqueue("many", *"abcdefg")

    async with _running(_build(queue, work)):
        await until(lambda: not queue.jobs, seconds=1)

    assert work.runs == [["a", "b", "c"], ["d", "e", "f"], ["g"]]


@on_its_own_clock
async def test_a_job_that_arrives_wakes_an_idle_engine() -> None:
    """At once, whatever the poll delay is."""
    queue, work = QueueInMemory(), ScriptedWork(succeed=succeed)

    async with _running(_build(queue, work)):
        await asyncio.sleep(5)
        queue.enqueue("succeed", "j1")
        await asyncio.sleep(0.01)

        assert queue.results == {"j1": b"done"}


class _Counting:
    """An open gate that counts the turns of the engine, which passes it once in each."""

    turns = 0

    @property
    def is_open(self) -> bool:
        """Stay open, but not for an engine that does nothing else than look."""
        self.turns += 1
        assert self.turns < 1000
        return True

    async def check(self) -> bool:
        """Return true."""
        return True


@pytest.mark.parametrize("lease", [1, 1.5, 2, 15])
def test_an_idle_engine_takes_few_turns_however_short_the_lease(lease: float) -> None:
    """One for each renewal of its watch, a look at the queue or at requests to abort: between them it sleeps."""

    @on_its_own_clock
    async def test() -> None:
        gate = _Counting()

        async with _running(_build(QueueInMemory(), ScriptedWork(), lease=timedelta(seconds=lease), gate=gate)):
            await asyncio.sleep(60)

        assert gate.turns <= 60 / min(1.5, lease / 4) + 20

    test()


@on_its_own_clock
async def test_a_stop_lets_running_jobs_end_and_claims_no_more() -> None:
    """What arrives afterwards is left to other workers."""
    queue, work = QueueInMemory(), ScriptedWork(sleep=sleep)
    queue.enqueue("sleep", "j1")
    engine = _build(queue, work)

    async with _running(engine):
        engine.stop()
        queue.enqueue("sleep", "j2")
        await asyncio.sleep(60)

    assert (queue.results, queue.claimed, list(queue.jobs)) == ({"j1": b"done"}, ["j1"], [b"j2"])


@on_its_own_clock
async def test_a_second_stop_gives_running_jobs_back() -> None:
    """Uncounted, and due as before."""
    queue, work = QueueInMemory(), ScriptedWork(hang=hang)
    queue.enqueue("hang", "j1")
    before = queue.jobs[b"j1"].due
    engine = _build(queue, work)

    async with _running(engine) as task:
        engine.stop()
        await asyncio.sleep(3)
        outcomes_of_the_first = list(queue.records)
        engine.stop(at_once=True)
        with pytest.raises(asyncio.CancelledError):
            await task

    job = queue.jobs[b"j1"]
    assert (outcomes_of_the_first, [record.outcome for record in queue.records]) == ([], ["back"])
    assert (job.owner, job.ended, job.due) == (None, 0, before)


@on_its_own_clock
async def test_the_end_gives_back_a_job_that_does_not_end() -> None:
    """It swallows its cancellation: the engine says so, and waits no longer."""

    async def hold_on(_job: ScriptedJob) -> Outcome:
        for _ in range(100):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.5)
        return DONE

    queue, work = QueueInMemory(), ScriptedWork(hold_on=hold_on)
    queue.enqueue("hold_on", "j1")
    engine = _build(queue, work)

    async with _running(engine):
        engine.stop(at_once=True)

    assert (engine.closing.held, [record.outcome for record in queue.records]) == (["j1"], ["back"])


@on_its_own_clock
async def test_an_abort_reaches_a_running_job() -> None:
    """And no other one."""
    queue, work = QueueInMemory(), ScriptedWork(hang=hang)
    queue.enqueue("hang", "j1", "j2")

    async with _running(_build(queue, work)):
        queue.abort("j1")
        await until(lambda: bool(queue.results), seconds=1)

        assert (queue.results, work.running["j2"]) == ({"j1": b"aborted"}, 1)


@on_its_own_clock
async def test_an_overdue_job_is_abandoned_and_its_slot_freed() -> None:
    """It swallows its cancellation: what it answers in the end counts for nothing."""
    end = asyncio.Event()

    async def go_on(_job: ScriptedJob) -> Outcome:
        await end.wait()
        return DONE

    queue, work = QueueInMemory(), ScriptedWork(go_on=go_on, succeed=succeed)
    queue.enqueue("go_on", "j1")
    queue.enqueue("succeed", "j2")

    async with _running(_build(queue, work, slots=1)):
        await until(lambda: len(queue.results) == 2)
        end.set()
        await asyncio.sleep(1)

    assert (queue.results, work.disconnected) == ({"j1": b"overdue", "j2": b"done"}, 1)


@on_its_own_clock
async def test_only_the_guilty_job_of_a_batch_fails() -> None:
    """Jobs of one kind run together; those of a batch that failed run in smaller ones, and in the end alone."""

    async def fail_with_j7(jobs: Sequence[ScriptedJob]) -> list[Outcome | Again]:
        is_guilty = "j7" in [job.claim.job_id for job in jobs]
        return [Again.APART if is_guilty else DONE] * len(jobs)

    async def fail_if_j7(job: ScriptedJob) -> Outcome:
        return Ended(succeeded=False, result=b"failed") if job.claim.job_id == "j7" else DONE

    queue, work = QueueInMemory(), ScriptedWork({"store": fail_with_j7}, store=fail_if_j7)
    ids = [f"j{number}" for number in range(1, 17)]
    queue.enqueue("store", *ids)

    await _build(queue, work, burst=True, slots=16).run()

    assert queue.results == {job_id: b"failed" if job_id == "j7" else b"done" for job_id in ids}
    assert sorted(map(len, work.runs)) == [1, 1, 1, 1, 4, 4, 4, 4, 16]
    assert {attempt for _, attempt in work.attempts} == {1}


@on_its_own_clock
async def test_jobs_that_cannot_be_done_with_others_run_alone() -> None:
    """The others of their batch are not run again."""

    async def leave_out_j2(jobs: Sequence[ScriptedJob]) -> list[Outcome | Again]:
        return [Again.ALONE if job.claim.job_id == "j2" else DONE for job in jobs]

    queue, work = QueueInMemory(), ScriptedWork({"store": leave_out_j2}, store=succeed)
    queue.enqueue("store", "j1", "j2", "j3")

    await _build(queue, work, burst=True).run()

    assert (work.runs, len(queue.results)) == ([["j1", "j2", "j3"], ["j2"]], 3)


class _Switch:
    """A gate."""

    is_open = False

    async def check(self) -> bool:
        """Return whether it is open."""
        return self.is_open


@on_its_own_clock
async def test_a_closed_gate_claims_nothing_until_it_opens() -> None:
    """What was running may end meanwhile."""
    queue, work, gate = QueueInMemory(), ScriptedWork(succeed=succeed), _Switch()
    queue.enqueue("succeed", "j1")

    async with _running(_build(queue, work, gate=gate)):
        await asyncio.sleep(60)
        claimed_before = list(queue.claimed)
        gate.is_open = True
        await until(lambda: bool(queue.results), seconds=2)

    assert (claimed_before, queue.results) == ([], {"j1": b"done"})


@pytest.mark.parametrize("fault", [Fault.UNSENT, Fault.UNANSWERED])
def test_outcomes_are_kept_in_an_outage_and_recorded_once(fault: Fault) -> None:
    """However long Redis is gone; also if it has recorded them and its answer was lost."""

    @on_its_own_clock
    async def test() -> None:
        queue, work = QueueInMemory(), ScriptedWork(sleep=sleep)
        queue.enqueue("sleep", "j1", "j2")

        async with _running(_build(queue, work)):
            queue.fault = lambda _call: fault
            await asyncio.sleep(60)
            recorded_before = bool(queue.records)
            queue.fault = lambda _call: None
            await asyncio.sleep(1)

        assert recorded_before is (fault is Fault.UNANSWERED)
        assert (len(queue.records), len(work.runs)) == (2, 2)
        assert queue.results == {"j1": b"done", "j2": b"done"}

    test()


@on_its_own_clock
async def test_a_lease_that_ends_in_an_outage_is_taken_again_and_starts_nothing() -> None:
    """The outcome is recorded under the new lease, and the attempt is still the first."""
    queue, work = QueueInMemory(_SHORT_LEASE), ScriptedWork(go_on=_Answers({"j1": [(20, DONE)]}))
    queue.enqueue("go_on", "j1")

    async with _running(_build(queue, work, lease=_SHORT_LEASE)):
        first_owner = queue.jobs[b"j1"].owner
        queue.fault = lambda _call: Fault.UNSENT
        await asyncio.sleep(10)
        queue.fault = lambda _call: None
        await asyncio.sleep(5)
        counted = queue.jobs[b"j1"].ended
        await until(lambda: bool(queue.records))

    assert (queue.claimed, work.attempts, counted) == (["j1", "j1"], [("j1", 1)], 0)
    assert [(record.outcome, record.owner == first_owner) for record in queue.records] == [("done", False)]


@on_its_own_clock
async def test_an_outcome_that_waits_while_its_lease_ends_is_recorded_under_the_next_one() -> None:
    """The job has ended, and only that cannot be recorded: it is claimed again, starts nothing, and is recorded."""
    answers: list[tuple[float, Outcome]] = [(0.5, Postponed(timedelta(0))), (0.5, DONE)]
    queue, work = QueueInMemory(_SHORT_LEASE), ScriptedWork(go_on=_Answers({"j1": answers}))
    queue.enqueue("go_on", "j1")

    async with _running(_build(queue, work, lease=_SHORT_LEASE)):
        queue.fault = lambda call: Fault.UNSENT if call in {"give_up", "renew"} else None
        await until(lambda: queue.ended_leases > 0)
        queue.fault = lambda _call: None
        await until(lambda: bool(queue.results))

    assert (work.attempts, queue.claimed) == ([("j1", 1), ("j1", 2)], ["j1"] * 3)
    assert [record.outcome for record in queue.records] == ["later", "done"]


@on_its_own_clock
async def test_a_job_that_is_claimed_again_before_it_is_known_to_be_back_runs() -> None:
    """Its postponement is recorded, the answer is late, and meanwhile the engine claims what is due."""
    answers: list[tuple[float, Outcome]] = [(0.5, Postponed(timedelta(0))), (0.5, DONE)]
    queue, work = QueueInMemory(), ScriptedWork(go_on=_Answers({"j1": answers}), succeed=succeed)
    queue.enqueue("go_on", "j1")

    async with _running(_build(queue, work)):
        queue.fault = lambda call: Fault.LATE if call == "give_up" else None
        await until(lambda: bool(queue.records))
        queue.enqueue("succeed", "j2")
        await until(lambda: queue.claimed == ["j1", "j1", "j2"], seconds=0.5)
        await until(lambda: not queue.jobs)

    assert work.attempts == [("j1", 1), ("j2", 1), ("j1", 2)]


@pytest.mark.parametrize("fault", [Fault.UNANSWERED, Fault.LATE, None])
def test_a_job_with_the_id_of_one_whose_end_is_not_known_yet_runs(fault: Fault | None) -> None:
    """The first one's end is recorded and the answer lost, or late, or Redis was emptied while it ran."""

    @on_its_own_clock
    async def test() -> None:
        queue = QueueInMemory()
        work = ScriptedWork(first=sleep, second=_Answers({"j1": [(0.5, Ended(succeeded=True, result=b"second"))]}))
        queue.enqueue("first", "j1")

        async with _running(_build(queue, work)):
            queue.fault = lambda call: fault if call == "give_up" else None
            await until(lambda: bool(queue.records) or fault is None)
            queue.enqueue("second", "j1")
            await until(lambda: queue.claimed == ["j1", "j1"], seconds=0.5)
            queue.fault = lambda _call: None
            await until(lambda: not queue.jobs)

        assert (work.attempts, queue.results) == ([("j1", 1)] * 2, {"j1": b"second"})

    test()


class _Answers:
    """A script: the answers of each job's attempts, each after some seconds; the last one is repeated."""

    def __init__(self, answers: Mapping[str, Sequence[tuple[float, Outcome]]]) -> None:
        self._answers = {job_id: list(listed) for job_id, listed in answers.items()}

    async def __call__(self, job: ScriptedJob) -> Outcome:
        """Answer."""
        job.limit = timedelta(minutes=1)
        assert job.work.running[job.claim.job_id] == 1
        answers = self._answers[job.claim.job_id]
        seconds, outcome = answers.pop(0) if len(answers) > 1 else answers[0]
        await asyncio.sleep(seconds)
        return outcome


@on_its_own_clock
async def test_a_postponed_job_comes_back_in_its_next_attempt() -> None:
    """After its delay; an attempt that does not count is not counted."""
    outcomes: list[Outcome] = [Postponed(timedelta(seconds=30)), Postponed(timedelta(seconds=30), counts=False), DONE]
    queue, work = QueueInMemory(), ScriptedWork(go_on=_Answers({"j1": [(0.0, outcome) for outcome in outcomes]}))
    queue.enqueue("go_on", "j1")

    await _build(queue, work, burst=True).run()

    assert work.attempts == [("j1", 1), ("j1", 2), ("j1", 2)]
    assert 60 < asyncio.get_running_loop().time() < 61
    assert [record.outcome for record in queue.records] == ["later", "later", "done"]


@on_its_own_clock
async def test_a_job_that_another_worker_has_taken_is_not_recorded() -> None:
    """It is that one's to end."""
    queue, work = QueueInMemory(), ScriptedWork(sleep=sleep)
    queue.enqueue("sleep", "j1", "j2")
    engine = _build(queue, work)

    async with _running(engine):
        queue.take_away("j1")
        await asyncio.sleep(5)

        assert (list(queue.jobs), queue.results) == ([b"j1"], {"j2": b"done"})
        assert not engine.runs.claims


@on_its_own_clock
async def test_a_run_that_raises_ends_its_job_alone() -> None:
    """A fault of ours, or a job that cancels itself, stops no engine."""

    async def break_off(_job: ScriptedJob) -> Outcome:
        raise ZeroDivisionError

    async def cancel_itself(_job: ScriptedJob) -> Outcome:
        raise asyncio.CancelledError

    queue, work = QueueInMemory(), ScriptedWork(break_off=break_off, cancel_itself=cancel_itself, succeed=succeed)
    queue.enqueue("break_off", "j1")
    queue.enqueue("cancel_itself", "j2")
    queue.enqueue("succeed", "j3")

    await _build(queue, work, burst=True, slots=1).run()

    assert queue.results == {"j1": b"ZeroDivisionError", "j2": b"interrupted", "j3": b"done"}


_DELAYS = st.sampled_from([0.0, 0.001, 0.01, 0.7, 5.0])
_POSTPONED = st.builds(Postponed, st.sampled_from([timedelta(0), timedelta(seconds=3)]), counts=st.booleans())
_LISTS_OF_ANSWERS = st.lists(st.tuples(_DELAYS, _POSTPONED), max_size=3)
_FAULTS = st.lists(st.one_of(st.none(), st.sampled_from(Fault)), max_size=60)


@given(
    postponed=st.lists(_LISTS_OF_ANSWERS, min_size=1, max_size=6),
    faults=_FAULTS,
    slots=st.integers(1, 4),
    lease=st.sampled_from([timedelta(seconds=1), _SHORT_LEASE, _LEASE]),
    limit=st.none() | st.integers(1, 3),
)
@example(
    postponed=[[(0.0, Postponed(timedelta(0)))], []],
    faults=[None, Fault.UNSENT, Fault.LATE],
    slots=2,
    limit=None,
    lease=_LEASE,
)  # put back by a call whose answer was late: no doubt of what announces jobs
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_fails_each_job_ends_and_never_runs_beside_itself(
    postponed: list[list[tuple[float, Outcome]]],
    faults: list[Fault | None],
    slots: int,
    lease: timedelta,
    limit: int | None,
) -> None:
    """Whatever jobs answer, and whichever calls fail or lose their answers; and while leases last, each runs once.

    While leases last, no more run at once than their kind's limit says.

    An outcome is lost if a lease has ended, and the answer to our own claim of the job, too: it is as after a crash.
    """
    answers = {
        f"j{number}": [*listed, (0.1, Ended(succeeded=True, result=f"r{number}".encode()))]
        for number, listed in enumerate(postponed)
    }

    @on_its_own_clock
    async def test() -> None:
        queue, work = QueueInMemory(lease), ScriptedWork(go_on=_Answers(answers))
        left = iter(faults)
        queue.fault = lambda _call: next(left, None)
        work.permits = {} if limit is None else {"go_on": [Permit("limit:", limit, 0)]}
        queue.enqueue("go_on", *answers)
        engine = _build(queue, work, slots=slots, lease=lease)

        async with _running(engine):
            await until(lambda: not queue.jobs and not engine.runs.claims, seconds=600)

        assert sorted(work.attempts) == sorted(_attempts(answers)) or queue.ended_leases
        assert work.most_running <= (limit or slots) or queue.ended_leases
        assert queue.results == {f"j{number}": f"r{number}".encode() for number in range(len(postponed))}
        assert Counter(record[:2] for record in queue.records).most_common(1)[0][1] == 1

    test()


def _attempts(answers: dict[str, list[tuple[float, Outcome]]]) -> Iterator[tuple[str, int]]:
    for job_id, listed in answers.items():
        attempt = 1
        for _, outcome in listed:
            yield job_id, attempt
            attempt += isinstance(outcome, Postponed) and outcome.counts


@on_its_own_clock
@pytest.mark.parametrize("name", ["heartbeat", "overdue"])
async def test_it_ends_when_somebody_cancels_what_keeps_its_jobs(name: str) -> None:
    """A job cancels all tasks, and the main loop's own cancellation is lost: it must not go on without the others."""
    async with _running(_build(QueueInMemory(), ScriptedWork())) as task:
        (background,) = [one for one in asyncio.all_tasks() if one.get_name() == name]
        background.cancel()
        await asyncio.wait([task], timeout=5)

        assert task.cancelled()


@on_its_own_clock
async def test_the_next_jobs_are_asked_for_before_the_claimed_ones_run() -> None:
    """Once it is known that they run one by one: Redis works meanwhile."""
    queue = QueueInMemory()
    claim, rooms, asked = queue.claim, list[int](), list[int]()

    async def note(room: int, *, watch: timedelta, is_idle: bool) -> Claimed:
        rooms.append(room)
        return await claim(room, watch=watch, is_idle=is_idle)

    async def look(_job: ScriptedJob) -> Outcome:
        asked.append(len(rooms))
        return DONE

    queue.claim = note  # type: ignore[method-assign] # to see when it is called
    queue.enqueue("look", *(f"j{number:03}" for number in range(300)))

    await _build(queue, ScriptedWork(look=look), slots=100, burst=True).run()

    assert rooms[:4] == [100, 50, 50, 50]
    assert (set(asked[:100]), set(asked[100:150]), set(asked[150:200])) == ({1}, {3}, {4})
