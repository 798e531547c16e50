"""Idle workers, in the test's own process: what wakes them, how soon, and how many commands that costs.

The poll delay is ten seconds throughout: what starts earlier was not found by polling.
"""

import asyncio
import math
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from statistics import median
from types import SimpleNamespace
from typing import Any, cast

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.typing import WorkerCoroutine
from arq.worker import Retry, func
from redis.asyncio import Redis
from structlog.testing import capture_logs

from arqonce import JobClient
from arqonce.arq.worker import Worker
from arqonce.connection.presence import ALARM_KEY, SHOWN_EVERY, give_alarm, order_quiet
from arqonce.connection.trend import read_trend
from arqonce.engine.idle import EmptyClaims, Waking, _State, _until_next_look
from arqonce.engine.leases import Leases
from arqonce.engine.presence import Presence
from arqonce.engine.queue import Look
from arqonce.wire.codec import decode, encode
from arqonce.wire.keys import watch_keys
from jobs import CreateUser
from tests.conftest import StartWorker, wait_until_async
from tests.faults.observe import Sessions
from tests.leaks import PASSWORD

StartFleet = Callable[..., Awaitable[list[Worker]]]

KEYS = watch_keys(["arq:queue"], relays=False)
"""Of workers in the test's own process, which have no relay."""

UNWOKEN = 4.5 / 2
"""Seconds: what starts later was not woken."""


class Log:
    """When which worker has started which job."""

    def __init__(self) -> None:
        self.started: dict[str, float] = {}
        self.by: Counter[str] = Counter()
        self.hold = asyncio.Event()
        """Jobs wait until it is set."""
        self.hold.set()


@pytest.fixture
def log() -> Log:
    """Yield what the jobs of a test write down."""
    return Log()


@pytest.fixture
async def start(redis: Redis, valkey_url: str, log: Log) -> AsyncIterator[StartFleet]:
    """Yield a function that starts workers and waits until they are idle; they end with the test."""
    assert redis is not None  # the queue is empty
    started: list[tuple[Worker, asyncio.Task[None]]] = []

    async def start(count: int = 1, *, url: str = valkey_url, **arguments: Any) -> list[Worker]:  # noqa: ANN401 - arq's
        workers = [await _build(log, url, **{"poll_delay": 10} | arguments) for _ in range(count)]
        started.extend((worker, asyncio.create_task(worker.async_run())) for worker in workers)
        await wait_until_async(lambda: _are_idle(workers), 20)
        return workers

    yield start
    log.hold.set()
    await asyncio.gather(*(_stop(worker, task) for worker, task in started))


async def _build(log: Log, url: str, **arguments: Any) -> Worker:  # noqa: ANN401 - arq's
    async def work(ctx: dict[Any, Any]) -> None:
        log.started[ctx["job_id"]] = time.time()
        log.by[ctx["name"]] += 1
        if ctx["job_id"] == "twice" and ctx["job_try"] == 1:
            raise Retry(defer=0.1)
        await log.hold.wait()

    pool = await create_pool(RedisSettings.from_dsn(url), job_serializer=encode, job_deserializer=decode)
    return Worker(
        [func(cast("WorkerCoroutine", work), name="work")],
        redis_pool=pool,
        job_serializer=encode,
        job_deserializer=decode,
        handle_signals=False,
        ctx={"name": str(id(pool))},
        **arguments,
    )


async def _stop(worker: Worker, task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    await worker.close()


def _waking(worker: Worker) -> Waking:
    assert worker.engine is not None
    return worker.engine._waking


async def _are_idle(workers: list[Worker]) -> bool:
    return all(worker.engine is not None and not _waking(worker).is_away for worker in workers)


def _in(state: _State, workers: list[Worker]) -> list[Worker]:
    return [worker for worker in workers if _waking(worker)._state is state]


async def _is_done(redis: Redis, job_id: str) -> bool:
    return bool(await redis.exists(f"arq:result:{job_id}"))


async def _run(pool: ArqRedis, log: Log, job_id: str, *, limit: float = 10, **options: Any) -> float:  # noqa: ANN401 - arq's
    """Enqueue a job and return how many seconds it took until it was started; wait until it is done."""
    before = time.time()
    await pool.enqueue_job("work", _job_id=job_id, **options)
    await wait_until_async(lambda: _is_done(pool, job_id), limit)
    return log.started[job_id] - before


async def _calls(redis: Redis) -> int:
    """Return how many commands workers have sent in order to claim, to end jobs, and to stand by."""
    stats = await redis.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval", "blpop"))


async def _clients(redis: Redis, sign: str) -> list[str]:
    return [client["id"] for client in await redis.client_list() if sign in f"cmd={client['cmd']} {client['flags']}"]


async def test_a_job_wakes_an_idle_worker(start: StartFleet, pool: ArqRedis, log: Log) -> None:
    """One that a plain arq producer has enqueued, too: 1 ms, without polling."""
    await start()

    took = [await _run(pool, log, f"j{number}") for number in range(15)]

    assert median(took) < 0.05
    assert max(took) < UNWOKEN


async def test_a_deferred_job_starts_on_time(start: StartFleet, pool: ArqRedis, redis: Redis, log: Log) -> None:
    """Not before its time and soon after it, with two claims: one for the news, one for the time."""
    await start()
    late, calls = [], await _calls(redis)
    for number in range(7):
        await _run(pool, log, f"j{number}", _defer_by=0.1)
        late.append(log.started[f"j{number}"] * 1000 - float((await _score(redis, f"j{number}")) or 0))
    calls = await _calls(redis) - calls

    assert min(late) > -1
    assert median(late) < 50
    assert calls < 7 * 5


async def _score(redis: Redis, job_id: str) -> float:
    result = decode(await redis.get(f"arq:result:{job_id}"))
    return float(result["et"]) + 100


async def test_a_job_that_was_put_back_starts_again_on_time(start: StartFleet, pool: ArqRedis, log: Log) -> None:
    """Redis tells nobody of his own changes."""
    await start()

    assert 0.1 <= await _run(pool, log, "twice") < UNWOKEN / 2


@pytest.mark.parametrize("count", [1, 10, 40])
async def test_one_job_costs_two_commands_however_many_are_idle(
    start: StartFleet, pool: ArqRedis, redis: Redis, log: Log, count: int
) -> None:
    """Its claim and its end: measured 2, 2 and 2 with 1, 10 and 40 idle workers, of which one watches.

    Without the election 2, 20 and 80, and without NOLOOP one more: the worker's own end wakes it.
    """
    workers = await start(count)
    await _run(pool, log, "first")  # all that were told of the start's last changes have heard
    costs = []
    for number in range(9):
        before = await _calls(redis)
        await _run(pool, log, f"j{number}")
        await asyncio.sleep(0.02)  # for the commands that there should not be
        costs.append(await _calls(redis) - before)

    assert median(costs) == 2
    assert len(_in(_State.WATCHING, workers)) == 1


@pytest.mark.parametrize("workers", [4, 10, 40])
def test_the_looks_of_a_fleet_do_not_grow_with_it(workers: int) -> None:
    """About one a second, by all that rest together; its deputy looks as soon as the watch could expire."""
    left = timedelta(seconds=3)
    looks = [_until_next_look(Look(left, is_deputy=False, workers=workers)).total_seconds() for _ in range(200)]
    deputys = _until_next_look(Look(left, is_deputy=True, workers=workers))

    assert 0.9 * workers < min(looks) <= max(looks) < 1.6 * workers
    assert left <= deputys <= left + timedelta(seconds=0.25)


async def _are_resting(workers: list[Worker], count: int) -> bool:
    return sum(worker.rest.is_on for worker in workers) == count


async def test_all_but_the_watcher_and_its_deputy_rest(start: StartFleet) -> None:
    """They leave arq's health key, requests to abort and the trend to the others."""
    workers = await start(4)
    await wait_until_async(lambda: _are_resting(workers, 2), 10)
    (watcher,) = _in(_State.WATCHING, workers)
    resting = [worker for worker in workers if worker.rest.is_on]
    left = [worker.rest.is_left_to_others for worker in workers]

    assert not watcher.rest.is_on
    assert [worker.next_chore() for worker in resting] == [math.inf, math.inf]
    assert left == [worker is not watcher for worker in workers]


async def test_workers_that_relay_have_a_watcher_of_their_own(redis: Redis) -> None:
    """They may rest, which the watcher of others, which have no relay, would not make up for."""
    found = [Leases(redis, "arq:queue", timedelta(seconds=9), must_know_pauses=relays) for relays in (True, False)]

    claimed = [await leases.claim(1, watch=timedelta(seconds=9)) for leases in found]

    assert [one.watches for one in claimed] == [True, True]
    for leases in found:
        await leases.aclose()


async def test_a_fleet_that_has_lost_its_watcher_and_the_deputy_recovers(
    start: StartFleet, pool: ArqRedis, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once as good as killed: one of those who rest finds the watch expired, and another takes the empty place."""
    monkeypatch.setattr("arqonce.engine.idle._LOOK_EACH", timedelta(milliseconds=100))
    workers = await start(4, lease=timedelta(seconds=1))
    await wait_until_async(lambda: _are_resting(workers, 2), 10)
    awake = [worker for worker in workers if not worker.rest.is_on]
    tasks = [worker.engine._waking._standing_by for worker in awake if worker.engine is not None]
    for worker in awake:
        worker.main_task.cancel()  # type: ignore[union-attr] # it has started
    for task in tasks:
        if task is not None:
            task.cancel()
    left = [worker for worker in workers if worker not in awake]

    await wait_until_async(lambda: _is_settled(left), 10)

    await wait_until_async(lambda: _are_resting(left, 0), 10)  # the other one is the deputy
    assert await _run(pool, log, "job") < UNWOKEN


async def test_who_has_found_the_word_of_a_dead_deputy_replaces_it_soon(
    start: StartFleet, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not at its next look: where workers come and go, jobs would start long after the lease of a killed one."""
    monkeypatch.setattr("arqonce.engine.idle._LOOK_EACH", timedelta(hours=1))
    await redis.set(KEYS.deputy, "dead", px=1000)
    workers = await start(2)

    await wait_until_async(lambda: _are_resting(workers, 1), 5)
    await wait_until_async(lambda: _are_resting(workers, 0), 5)


async def test_a_deputy_that_takes_over_says_that_it_is_none(redis: Redis) -> None:
    """The next one that stands by is, at once."""
    leases = [Leases(redis, "arq:queue", timedelta(seconds=9)) for _ in range(2)]
    first, second = (one.watch for one in leases)

    looks = [(await one.look(timedelta(seconds=9))).is_deputy for one in (first, second)]
    await first.retire()
    await second.retire()  # it is none, and ends nobody's
    looks.append((await second.look(timedelta(seconds=9))).is_deputy)

    assert looks == [True, False, True]
    for one in leases:
        await one.aclose()


async def test_redis_notifies_an_idle_worker_of_an_order(start: StartFleet, redis: Redis) -> None:
    """It looks for orders every 30 s, and obeys at once; also when it is told to work again."""
    (worker,) = await start(1)
    presence = worker._presence
    assert presence is not None
    assert worker.engine is not None
    engine = worker.engine
    await wait_until_async(lambda: _says_little(presence), 20)
    obeyed = []

    for quiet in (True, False):

        async def is_so(quiet: bool = quiet) -> bool:  # noqa: FBT001 - bound here
            return engine.is_quiet is quiet

        await order_quiet(redis, presence.worker, quiet=quiet)
        await wait_until_async(is_so, 2)
        obeyed.append(engine.is_quiet)

    assert obeyed == [True, False]


async def test_redis_notifies_those_who_rest_of_an_alarm(start: StartFleet, redis: Redis) -> None:
    """Again and again: a relay that has lost PostgreSQL gives it, and others are to look."""
    workers = await start(3)
    await wait_until_async(lambda: _are_resting(workers, 1), 10)
    (resting,) = [worker for worker in workers if worker.rest.is_on]
    presence = resting._presence
    assert presence is not None
    stirred = []

    for _ in range(2):
        await wait_until_async(lambda: _says_little(presence), 20)
        before = resting.rest._stirs
        await give_alarm(redis)
        await wait_until_async(lambda: _was_stirred(resting, before + 1), 2)  # noqa: B023 - awaited at once
        await redis.delete(ALARM_KEY)  # as it ends after a minute, which is told, too
        await wait_until_async(lambda: _was_stirred(resting, before + 2), 2)  # noqa: B023 - as above
        stirred.append(resting.rest._stirs - before)

    assert stirred == [2, 2]
    assert resting.rest.is_on


async def _was_stirred(worker: Worker, times: int) -> bool:
    return worker.rest._stirs >= times


async def _says_little(presence: Presence) -> bool:
    return presence.due_in() > SHOWN_EVERY.total_seconds()


async def test_a_watcher_renews_its_word_without_claiming(start: StartFleet, redis: Redis) -> None:
    """Its word outlasts its time by plain commands: a claim looks at much more."""
    await start()
    await wait_until_async(lambda: _is_measured(redis), 20)  # by a script; the next time is 15 s later
    name, claims = await redis.get(KEYS.watcher), await _calls(redis)

    await asyncio.sleep(5)  # longer than a word holds

    assert await redis.get(KEYS.watcher) == name
    assert await redis.pttl(KEYS.watcher) > 0
    assert await _calls(redis) == claims


async def _is_measured(redis: Redis) -> bool:
    """Return whether the worker has written the trend of its queue for the first time."""
    (part,) = await read_trend(redis, ["arq:queue"], length=timedelta(minutes=2), step=timedelta(minutes=2))
    return part is not None and part.gauges is not None


async def test_of_two_watchers_one_gives_way(start: StartFleet, redis: Redis) -> None:
    """One that was stopped for long goes on to watch: it notices at its next word, and stands by."""
    workers = await start()
    assert _in(_State.WATCHING, workers)

    await redis.set(KEYS.watcher, "another", px=10_000)

    await wait_until_async(lambda: _stands_by(workers), 10)


async def _stands_by(workers: list[Worker]) -> bool:
    return _in(_State.STANDING_BY, workers) == workers


async def test_a_burst_is_shared(start: StartFleet, pool: ArqRedis, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that has all it can take wakes the next one: 200 jobs fill the 20 slots of each of ten workers."""
    monkeypatch.setattr("arqonce.engine.idle._WATCH", timedelta(seconds=50))  # whoever is not woken sleeps so long
    log.hold.clear()
    await start(10, max_jobs=20, lease=timedelta(seconds=90))

    for number in range(200):
        await pool.enqueue_job("work", _job_id=f"j{number}")
    await wait_until_async(lambda: _have_started(log, 200), 25)

    assert sorted(log.by.values()) == [20] * 10


async def _have_started(log: Log, count: int) -> bool:
    return len(log.started) == count


async def test_a_full_worker_leaves_the_watch_to_another(start: StartFleet, pool: ArqRedis, log: Log) -> None:
    """The job that it cannot take starts at once elsewhere."""
    log.hold.clear()
    await start(2, max_jobs=1)

    took = []
    for number in range(2):
        before = time.time()
        await pool.enqueue_job("work", _job_id=f"j{number}")
        await wait_until_async(lambda: _have_started(log, number + 1), 10)  # noqa: B023 - awaited at once
        took.append(log.started[f"j{number}"] - before)

    assert max(took) < 1
    assert sorted(log.by.values()) == [1, 1]


async def test_a_worker_that_stops_leaves_the_watch_to_another(start: StartFleet, pool: ArqRedis, log: Log) -> None:
    """At once: the next job does not wait until its word ends."""
    workers = await start(2)
    (watcher,) = _in(_State.WATCHING, workers)
    watcher.handle_sig_wait_for_completion(signal.SIGTERM)
    with suppress(asyncio.CancelledError):
        await cast("asyncio.Task[None]", watcher.main_task)
    await watcher.close()  # its main loop may have been ended before it could say anything

    assert await _run(pool, log, "job") < 1
    assert _waking(watcher).is_away


async def test_a_worker_without_its_database_leaves_the_watch_to_another(
    start: StartFleet, pool: ArqRedis, log: Log
) -> None:
    """It could only fail."""
    workers = await start(2)
    (watcher,) = _in(_State.WATCHING, workers)

    async def no() -> bool:
        return False

    assert watcher.engine is not None
    watcher.engine._gate = SimpleNamespace(is_open=False, check=no)

    assert await _run(pool, log, "job") < 1
    assert log.by[watcher.ctx["name"]] == 0


async def test_others_ends_do_not_make_an_idle_worker_spin(
    start: StartFleet, pool: ArqRedis, redis: Redis, log: Log
) -> None:
    """Every change of the queue rings; claims for nothing are limited, and a real job still starts soon."""
    await start()
    before, changes, since = await _calls(redis), 0, time.monotonic()
    while time.monotonic() < since + 1:
        await redis.zadd("arq:queue", {"other": 4e12 + changes})
        changes += 1
    calls = await _calls(redis) - before

    assert changes > 200
    assert calls < 10 + 50 + 10
    assert await _run(pool, log, "job") < 0.5


def test_claims_for_nothing_are_slowed_down_and_claims_for_something_are_not() -> None:
    """Ten at once, then one in 20 ms; a claim that finds a job sets it back."""
    claims, now, pauses = EmptyClaims(), 100.0, []
    for _ in range(14):
        pauses.append(round(claims.pause(now), 3))
        now += pauses[-1]
        claims.count(now, found=False)
    claims.count(now, found=True)

    assert pauses == [0.0] * 10 + [0.02] * 4
    assert claims.pause(now) == 0.0


async def test_a_lock_that_ends_by_itself_is_waited_for(
    start: StartFleet, pool: ArqRedis, redis: Redis, log: Log
) -> None:
    """A killed worker of arq's own class leaves one, and nobody tells when it ends."""
    await start()
    await redis.set("arq:in-progress:job", "1", px=300)

    assert 0.2 < await _run(pool, log, "job") < 1


@pytest.mark.parametrize("refused", ["-client|tracking", "-blpop"])
async def test_a_server_that_refuses_to_wake_us_is_polled(  # noqa: PLR0913, PLR0917 - fixtures
    start: StartFleet, pool: ArqRedis, redis: Redis, log: Log, valkey_url: str, refused: str
) -> None:
    """As before, and the log says so once, with the cure."""
    await redis.acl_setuser(
        "polls",
        reset=True,
        enabled=True,
        passwords=[f"+{PASSWORD}"],
        keys="*",
        channels="*",
        commands=["+@all", refused],
    )
    with capture_logs() as logs:
        await start(2, url=valkey_url.replace("//", f"//polls:{PASSWORD}@"), poll_delay=0.02)
        for number in range(5):
            await _run(pool, log, f"j{number}")
            await asyncio.sleep(0.05)  # some turns

    told = [entry for entry in logs if "looking at the queue instead" in entry["event"]]
    assert len(told) == (2 if refused == "-client|tracking" else 1)  # the one that watches need not stand by
    assert "users.acl" in told[0]["cure"]


async def test_a_deferred_job_is_aborted_before_it_starts(start: StartFleet, pool: ArqRedis, log: Log) -> None:
    """Arq's abort() makes it due first and asks for its end then: a worker that wakes in between must wait for that."""
    await start(allow_abort_jobs=True)
    jobs = [await pool.enqueue_job("work", _job_id=f"j{number}", _defer_by=300) for number in range(5)]

    aborted = [await job.abort(timeout=10, poll_delay=0.02) for job in jobs if job is not None]

    assert aborted == [True] * 5
    assert log.started == {}


async def test_a_lost_connection_is_made_again_with_all_that_belongs_to_it(
    start: StartFleet, pool: ArqRedis, redis: Redis, log: Log
) -> None:
    """The one that hears, and the one on which the others wait for their turn."""
    workers = await start(2)

    async def hears() -> bool:
        return bool(await _clients(redis, " t")) and len(await _clients(redis, "cmd=blpop")) == 1

    for sign in (" t", "cmd=blpop"):
        await wait_until_async(hears, 10)
        for client in await _clients(redis, sign):
            await redis.client_kill_filter(_id=client)
        await wait_until_async(hears, 1 if sign == " t" else 10)  # not only when the safety poll comes
        took = [await _run(pool, log, f"{sign.strip()}{number}") for number in range(3)]
        assert max(took) < UNWOKEN, sign
    assert len(_in(_State.WATCHING, workers)) == 1


async def test_keys_of_another_type_stall_nobody(start: StartFleet, pool: ArqRedis, redis: Redis, log: Log) -> None:
    """They are ours, and made anew."""
    await redis.sadd(KEYS.watcher, "x")  # type: ignore[misc] # typed for both kinds of clients
    await redis.set(KEYS.baton, "x")
    await redis.sadd(KEYS.deputy, "x")  # type: ignore[misc] # as above

    workers = await start(2, lease=timedelta(seconds=1))

    assert await _run(pool, log, "job") < 1
    await wait_until_async(lambda: _is_settled(workers), 5)
    assert [await redis.type(key) for key in KEYS[:2]] == [b"string", b"none"]


async def _is_settled(workers: list[Worker]) -> bool:
    return bool(_in(_State.WATCHING, workers)) and bool(_in(_State.STANDING_BY, workers))


async def test_a_word_that_nobody_can_have_given_binds_nobody(
    start: StartFleet, pool: ArqRedis, redis: Redis, log: Log
) -> None:
    """A key without an end, or with one far away, does not keep all others from watching."""
    await redis.set(KEYS.watcher, f"nobody:{4 * 10**12}")

    (worker,) = await start()

    assert _waking(worker)._state is _State.WATCHING
    assert await _run(pool, log, "job") < 1


async def test_another_takes_over_from_a_killed_watcher(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Within 4.75 s, in which a job may wait."""
    assert sessions is not None  # it removes the users afterwards
    workers = [start_worker(WORKER_POLL_INTERVAL="60s")]
    await wait_until_async(lambda: _is_watched(redis), 20)  # ready comes a little before that
    first = await redis.get("arq:queue:watcher")
    workers.append(start_worker(WORKER_POLL_INTERVAL="60s"))
    await wait_until_async(lambda: _stands_one_by(redis), 20)  # before that the second one would claim by itself
    await wait_until_async(lambda: _is_watched(redis), 20)
    watcher = workers[0 if await redis.get("arq:queue:watcher") == first else 1]  # a starved one may have lost it
    watcher.process.kill()
    watcher.process.wait()
    since, left = time.monotonic(), await redis.pttl("arq:queue:watcher") / 1000

    await (await client.enqueue(CreateUser(name="Heir"))).result(timeout=timedelta(seconds=20))

    assert left - 0.1 < time.monotonic() - since < 10  # the killed one did watch; half of it is for a busy machine


async def _stands_one_by(redis: Redis) -> bool:
    """Return whether a worker waits for the baton."""
    return bool((await redis.info("clients"))["blocked_clients"])


async def _is_watched(redis: Redis) -> bool:
    return bool(await redis.exists("arq:queue:watcher"))


async def test_jobs_of_real_workers_are_shared_and_leave_nothing_behind(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Three idle processes, then an orderly end: nobody's word is left."""
    assert sessions is not None  # it removes the users afterwards
    workers = [start_worker(WORKER_POLL_INTERVAL="10s", WORKER_MAX_JOBS="1") for _ in range(3)]
    handles = await client.enqueue_many([CreateUser(name=f"User {number}") for number in range(60)])
    for handle in handles:
        await handle.result(timeout=timedelta(seconds=20))

    codes = [await asyncio.to_thread(worker.stop) for worker in workers]

    assert codes == [0, 0, 0]
    assert await redis.exists("arq:queue:watcher") == 0
