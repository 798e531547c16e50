"""An arq service as it is, in our worker: ``arqonce run --settings``, and what ``arq-check`` says of it."""

import asyncio
import importlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.jobs import Job
from arq.worker import JobExecutionFailed
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import DatabaseSettings, UsageError, decode, encode
from arqonce.arq.differences import find_differences
from arqonce.arq.service import Service, load_service, url_of
from arqonce.commands.arq_check import arq_check
from arqonce.process.service import grace_of, queue_of
from arqonce.settings.worker import WorkerSettings
from tests import warm
from tests.conftest import StartWorker, WorkerProcess, wait_until_async

HERE = Path(__file__).parent / "service"
ROOT = Path(__file__).parents[3]

Start = Callable[..., WorkerProcess]


@pytest.fixture
async def service_pool(redis: Redis, valkey_url: str) -> AsyncIterator[ArqRedis]:
    """Yield a producer of the service's, with JSON."""
    assert redis is not None  # the queue is empty
    pool = await create_pool(
        RedisSettings.from_dsn(valkey_url),
        default_queue_name="afternoon",
        job_serializer=encode,
        job_deserializer=decode,
    )
    yield pool
    await pool.aclose()


@pytest.fixture
def surroundings(valkey_url: str, tmp_path: Path) -> dict[str, str]:
    """Return the service's environment: no PostgreSQL is in it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "REDIS_"))}
    return environment | {
        "SERVICE_REDIS": valkey_url,
        "EFFECTS": str(tmp_path / "effects"),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)]),
        "WORKER_LOG_FORMAT": "json",
        "WORKER_LEASE": "1s",
    }


@pytest.fixture
def start_service(start_worker: StartWorker, surroundings: dict[str, str]) -> Start:
    """Return a function that starts a worker of the service."""

    def start(*options: str, settings: str = "afternoon.WorkerSettings") -> WorkerProcess:
        command = [sys.executable, "-m", "arqonce", "run", "--settings", settings, *options]
        return start_worker(*command, DATABASE_URL="", **surroundings)

    return start


def _effects(surroundings: dict[str, str]) -> list[str]:
    file = Path(surroundings["EFFECTS"])
    return file.read_text().splitlines() if file.exists() else []


async def _enqueue(pool: ArqRedis, name: str, /, *args: object, **options: Any) -> Job:  # noqa: ANN401 - arq's
    job = await pool.enqueue_job(name, *args, **options)
    assert job is not None
    return job


async def test_functions_hooks_and_jobs_that_enqueue_jobs_run_as_in_arq(
    start_service: Start, service_pool: ArqRedis, surroundings: dict[str, str]
) -> None:
    """With inherited settings, which arq's own command passes over; the shutdown hook runs after SIGTERM."""
    worker = start_service()

    total = await (await _enqueue(service_pool, "add", 1, 2)).result(timeout=20, poll_delay=0.05)
    tries = await (await _enqueue(service_pool, "patient")).result(timeout=20, poll_delay=0.05)
    await (await _enqueue(service_pool, "chain", 3)).result(timeout=20, poll_delay=0.05)
    with pytest.raises(Exception, match="ValueError: Jane"):
        await (await _enqueue(service_pool, "fail", "Jane")).result(timeout=20, poll_delay=0.05)
    await wait_until_async(lambda: _has(surroundings, "chain 0"), 10)
    code = worker.stop()

    effects = _effects(surroundings)
    assert (total, tries, code) == (3, 3, 0)
    assert effects == ["chain 3", "chain 2", "chain 1", "chain 0", "closed"]
    assert "Jane" not in worker.log


async def _has(surroundings: dict[str, str], effect: str) -> bool:
    return effect in _effects(surroundings)


async def test_each_job_has_its_lines_in_the_log(start_service: Start, service_pool: ArqRedis) -> None:
    """Start, end, retry, failure, and a function that is not there; without arguments."""
    worker = start_service()
    asked = (("add", 1, 2), ("patient",), ("fail", "Jane"), ("gone", "Jane"))
    jobs = [await _enqueue(service_pool, name, *args) for name, *args in asked]
    await asyncio.gather(*(job.result(timeout=20, poll_delay=0.05) for job in jobs), return_exceptions=True)
    worker.stop()

    lines = [json.loads(line) for line in worker.log.splitlines() if line.startswith("{")]
    found = {(line.get("job_name"), line["event"]) for line in lines if "job_name" in line}
    assert found == {
        ("add", "job started"),
        ("add", "job done"),
        ("patient", "job started"),
        ("patient", "job retried"),
        ("patient", "job done"),
        ("fail", "job started"),
        ("fail", "job failed"),
        ("gone", "job refused"),
    }
    assert {line["job_name"] for line in lines if "waited_ms" in line} == {"add", "patient", "fail", "gone"}
    assert "Jane" not in worker.log


async def test_a_cron_job_may_have_any_name(
    start_service: Start, service_pool: ArqRedis, surroundings: dict[str, str]
) -> None:
    """Its id has a space, and is what the function gets."""
    start_service(settings="afternoon.CronSettings")

    await wait_until_async(lambda: _has(surroundings, "tick nightly report"), 15)
    assert service_pool is not None


async def test_jobs_that_block_the_loop_keep_their_leases(
    start_service: Start, service_pool: ArqRedis, surroundings: dict[str, str]
) -> None:
    """One for three leases, and six that wait behind one another: each starts once, beside an idle worker."""
    for _ in range(2):
        start_service()
    jobs = [await _enqueue(service_pool, "block", seconds) for seconds in (3.0, *[0.5] * 6)]

    await asyncio.gather(*(job.result(timeout=30, poll_delay=0.05) for job in jobs))

    assert len(_effects(surroundings)) == len(jobs)


async def test_a_worker_that_is_stopped_still_loses_its_jobs(
    start_service: Start, service_pool: ArqRedis, surroundings: dict[str, str]
) -> None:
    """SIGSTOP stops the thread, too: the job starts elsewhere when its lease has ended."""
    first = start_service()
    job = await _enqueue(service_pool, "block", 2.0)
    await wait_until_async(lambda: _has(surroundings, "block"), 20)
    os.kill(first.process.pid, signal.SIGSTOP)
    start_service()
    started = time.monotonic()

    pid = await job.result(timeout=30, poll_delay=0.05)

    assert pid != first.process.pid
    assert time.monotonic() - started < 15
    os.kill(first.process.pid, signal.SIGKILL)


async def test_a_job_that_cancels_its_worker_ends_it_with_an_error(
    start_service: Start, service_pool: ArqRedis
) -> None:
    """So that a supervisor starts it again: an exit with success would not be noticed."""
    worker = start_service()
    await _enqueue(service_pool, "cancel_all")

    assert await asyncio.to_thread(worker.process.wait, 30) == 1
    assert "a job cancels tasks of others" in worker.log


async def test_pickles_are_put_back_until_a_worker_accepts_them(
    start_service: Start, redis: Redis, valkey_url: str
) -> None:
    """A default pool of arq's sends them: nothing is lost by a worker that was started without the flag."""
    pool = await create_pool(RedisSettings.from_dsn(valkey_url), default_queue_name="afternoon")
    job = await _enqueue(pool, "add", 1, 2)
    first = start_service()

    async def is_put_back() -> bool:
        score = await redis.zscore("afternoon", job.job_id)
        return score is not None and score > time.time() * 1000 + 30_000

    await wait_until_async(is_put_back, 20)
    assert await redis.exists(f"arq:job:{job.job_id}") == 1
    assert first.stop() == 0
    await redis.zadd("afternoon", {job.job_id: 1})
    other = start_service("--pickle")
    later = await _enqueue(pool, "add", 3, 4)

    json_pool = await create_pool(
        RedisSettings.from_dsn(valkey_url),
        default_queue_name="afternoon",
        job_serializer=encode,
        job_deserializer=decode,
    )
    as_json = await _enqueue(json_pool, "add", 5, 6)

    results = [await one.result(timeout=20, poll_delay=0.05) for one in (job, later, as_json)]

    assert results == [3, 7, 11]  # each in the form that its producer reads
    await json_pool.aclose()
    assert "whoever can write to Redis can run code" in other.log
    await pool.aclose()


async def test_check_looks_for_the_health_key(
    start_service: Start, service_pool: ArqRedis, surroundings: dict[str, str]
) -> None:
    """As arq's own."""

    async def check() -> int:
        command = ["run", "--settings", "afternoon.WorkerSettings", "--check"]
        done = await asyncio.to_thread(warm.run_elsewhere, "arqonce", *command, env=surroundings, cwd=HERE)
        return done.returncode

    before = await check()
    start_service()
    await wait_until_async(lambda: _exists(service_pool, "afternoon:health-check"), 20)

    assert (before, await check()) == (1, 0)


async def _exists(pool: ArqRedis, key: str) -> bool:
    return bool(await pool.exists(key))


async def test_a_function_is_moved_to_a_handler_while_its_jobs_are_queued(
    start_worker: StartWorker,
    service_pool: ArqRedis,
    surroundings: dict[str, str],
    database: DatabaseSettings,
    sessions: async_sessionmaker[AsyncSession],
) -> None:
    """A registry beside the service: both run in one worker, each job by its name, the handler's with its receipt.

    Jobs of both forms are queued, and each producer gets an answer that it can read.
    """
    settings = RedisSettings.from_dsn(surroundings["SERVICE_REDIS"])
    default_pool = await create_pool(settings, default_queue_name="afternoon")
    moved = await _enqueue(service_pool, "create_user", name="Jane")
    stayed = await _enqueue(service_pool, "add", 1, 2)
    pickled = await _enqueue(default_pool, "create_user", name="Jon", email="jon@example.org")
    # Later: of jobs that are due in the same millisecond, the one with the smaller id is first.
    refused = await _enqueue(default_pool, "create_user", name="Jon", email="jon@example.org", _defer_by=0.05)
    command = [sys.executable, "-m", "arqonce", "--registry", "jobs.registry:REGISTRY", "run"]
    url = database.url.get_secret_value()
    service = ["--settings", "afternoon.WorkerSettings", "--pickle"]
    worker = start_worker(*command, *service, **surroundings | {"DATABASE_URL": url})

    user = await moved.result(timeout=20, poll_delay=0.05)
    total = await stayed.result(timeout=20, poll_delay=0.05)
    other = await pickled.result(timeout=20, poll_delay=0.05)
    with pytest.raises(JobExecutionFailed, match=r"^email_taken: another user has this e-mail"):
        await refused.result(timeout=20, poll_delay=0.05)

    assert (user["name"], total, other["name"], worker.stop()) == ("Jane", 3, "Jon", 0)
    assert sessions is not None  # the users are removed afterwards
    await default_pool.aclose()


def test_a_class_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It says what is missing: the module, the class, or its functions."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "half_written.py").write_text("def work(:\n")
    for path, text in {
        "afternoon": "write module.ClassName",
        "nowhere.WorkerSettings": "there is no module nowhere",
        "afternoon.Nothing": "afternoon has no Nothing",
        "half_written.WorkerSettings": "line 1: invalid syntax",
        "afternoon.Base": "neither functions nor cron_jobs",
        "afternoon.py": "write module.ClassName",
        "./afternoon.WorkerSettings": "write module.ClassName",
        "..afternoon.WorkerSettings": "write module.ClassName",
        "afternoon:": "write module.ClassName",
        "10:00": "write module.ClassName",
        "no-where.WorkerSettings": "there is no module no-where",
    }.items():
        with pytest.raises(UsageError, match=text):
            load_service(path)


def test_modules_have_any_name_and_their_own_errors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Arq imports ``my-worker``, too. What a module raises is not told as a class that it lacks."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my-worker.py").write_text("async def work(ctx): ...\nclass WorkerSettings:\n    functions = [work]\n")
    (tmp_path / "failing_worker.py").write_text("import os\nos.nothing\n")

    assert len(load_service(" my-worker.WorkerSettings").settings["functions"]) == 1
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        load_service("failing_worker.WorkerSettings")


def test_the_password_of_the_environment_is_for_its_own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """REDIS_URL and REDIS_PASSWORD are used together, where the service's settings name no Redis, or not at all."""
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere:1/2")
    monkeypatch.setenv("REDIS_PASSWORD", "word")
    own = Service("app.Own", {"redis_settings": RedisSettings(port=3)}, frozenset())
    queues = [queue_of(service) for service in (own, Service("app.None", {}, frozenset()))]
    monkeypatch.delenv("REDIS_URL")
    queues.append(queue_of(Service("app.None", {}, frozenset())))

    assert [(queue.url.get_secret_value(), queue.plain_password) for queue in queues] == [
        ("redis://localhost:3/0", None),
        ("redis://elsewhere:1/2", "word"),
        ("redis://localhost:6379/0", None),
    ]


def test_arq_check_names_what_differs_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inherited settings, misspelt ones, obsolete ones, and the serializer."""
    monkeypatch.syspath_prepend(str(HERE))
    afternoon = importlib.import_module("afternoon")

    class Odd(afternoon.WorkerSettings):  # type: ignore[misc, name-defined] # found at run time
        max_job = 3
        queue_read_limit = 10
        job_timeout = None
        redis_pool = object()
        redis_settings = RedisSettings(ssl=True)

    monkeypatch.setattr(afternoon, "Odd", Odd, raising=False)

    found = {(one.level, one.where) for one in find_differences(load_service("afternoon.Odd"))}

    assert {
        ("error", "job_timeout"),
        ("error", "redis_pool"),
        ("warning", "max_job"),
        ("warning", "redis_settings"),
        ("error", "job_deserializer"),
        ("warning", "functions"),
        ("note", "queue_read_limit"),
    } <= found


def test_arq_check_names_functions_that_could_be_handlers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By their source: those that use nothing of ``ctx`` but a database. Each with its cure, and as no fault."""
    monkeypatch.syspath_prepend(str(HERE))

    with pytest.raises(typer.Exit) as ended:
        arq_check("morning.WorkerSettings", as_json=True)

    found = {note["where"]: note for note in json.loads(capsys.readouterr().out)}
    assert found.keys() == set(re.findall(r"async def (may_\w+)", (HERE / "morning.py").read_text()))
    assert (ended.value.exit_code, found["may_open_a_session"]) == (
        0,
        {
            "level": "note",
            "where": "may_open_a_session",
            "what": 'of ctx it uses only ctx["sessions"]: as a handler it would take effect exactly once instead of at '
            "least once",
            "cure": 'class MayOpenASession(Payload) with job_name = "may_open_a_session" and the fields name: str, '
            "age: int = 0; async def may_open_a_session(session: AsyncSession, payload: MayOpenASession), without "
            "commit()",
        },
    )


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        (RedisSettings(), "redis://localhost:6379/0"),
        (RedisSettings(host="h", port=1, database=2, password="p@:/"), "redis://:p%40%3A%2F@h:1/2"),
        (RedisSettings(host="::1", username="u", password="p", ssl=True), "rediss://u:p@[::1]:6379/0"),
        (RedisSettings(username="u"), "redis://u:@localhost:6379/0"),  # one with nopass
        (RedisSettings(host=None), "redis://localhost:6379/0"),  # type: ignore[arg-type] # as of an unset variable
        (RedisSettings(unix_socket_path="/run/redis", database=3), "unix:///run/redis?db=3"),
        (RedisSettings(unix_socket_path="/run/a b/#1?%41"), "unix:///run/a%20b/%231%3F%2541?db=0"),
        (
            RedisSettings(host=[("a", 1), ("b", 2)], sentinel=True, sentinel_master="m"),
            "redis+sentinel://a:1,b:2/m/0",
        ),
        (RedisSettings(ssl=True, ssl_ca_certs="/ca.pem"), "rediss://localhost:6379/0?ssl_ca_certs=%2Fca.pem"),
    ],
)
def test_arqs_connection_settings_are_a_url(settings: RedisSettings, url: str) -> None:
    """With them come our time limits, Sentinel and TLS."""
    assert url_of(settings) == url


_WRONG = {
    "max_tries = '3'": "max_tries is str, and must be a whole number",
    "max_tries = None": "max_tries is NoneType",
    "functions = [func(work, max_tries='3')]": "max_tries of work is str",
    "functions = [func(work, timeout='3')]": "timeout of work is str, and must be a number of seconds or a timedelta",
    "cron_jobs = [cron(work, keep_result='3')]": "keep_result of cron:work is str",
    "max_jobs = 0": "max_jobs is 0, and must be a whole number, 1 or more",
    "max_jobs = 2.5": "max_jobs is float",
    "keep_result = '60'": "keep_result is str",
    "keep_result = None": "keep_result is NoneType",
    "poll_delay = None": "poll_delay is NoneType",
    "health_check_interval = None": "health_check_interval is NoneType",
    "job_completion_wait = '5'": "job_completion_wait is str",
    "timezone = 'Europe/Berlin'": "timezone is str, and must be a tzinfo",
    "redis_settings = 'redis://:secret@host'": "redis_settings is str, and must be arq's RedisSettings",
    "functions = work": "functions is function, and must be a list",
    "functions = 'tasks.work'": "functions is str, and must be a list",
    "functions = ['os.nothing']": 'Module "os" does not define a "nothing" attribute',
    "functions = ['nowhere.work']": "No module named 'nowhere'",
    "on_startup = 'tasks.startup'": "on_startup is str, and must be a function",
}


@pytest.mark.parametrize(("body", "told"), _WRONG.items())
def test_settings_of_a_wrong_type_are_refused_before_jobs_fail(
    body: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by ``os.environ.get``: arq exits at the first job, which stays in the queue. No value is repeated."""
    service = _written(body, tmp_path, monkeypatch)

    with pytest.raises(UsageError) as refused:
        load_service(service)

    assert str(refused.value).startswith(f"{service}: {told}")
    assert "secret" not in str(refused.value)


def _written(body: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a settings class, and return its name."""
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "typed_settings", raising=False)
    imports = "from datetime import timedelta\nfrom arq import cron, func\nasync def work(ctx): ...\n"
    code = f"{imports}class WorkerSettings:\n    functions = [work]\n    {body}\n"
    (folder / "typed_settings.py").write_text(code)
    return "typed_settings.WorkerSettings"


@pytest.mark.parametrize(
    "body",
    [
        "keep_result, keep_result_forever = None, True",
        "job_completion_wait, keep_result, poll_delay = timedelta(seconds=1), 60.5, 0",
        "functions = (one for one in [work])",
        "cron_jobs = (one for one in [cron(work)])",
        "functions, on_startup, timezone = ['shutil.nothing', work][1:], None, None",
    ],
)
def test_settings_that_arq_takes_are_taken(body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a generator of functions is read once."""
    service = load_service(_written(body, tmp_path, monkeypatch))

    assert len(service.settings["functions"]) == 1
    assert grace_of(service, WorkerSettings()) >= timedelta(seconds=1)


def test_properties_of_a_settings_object_are_not_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be one of pydantic-settings: what arq does not know is no business of ours."""
    _written("broken = property(lambda self: 1 / 0)", tmp_path, monkeypatch)
    with (tmp_path / "typed_settings.py").open("a") as file:
        file.write("settings = WorkerSettings()\nsettings.functions = [work]\n")

    assert load_service("typed_settings.settings").others == {"broken"}


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize("command", [["arq-check"], ["run", "--settings"]], ids=["arq-check", "run"])
@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("functions = [work]", "is not a coroutine function"),
        ("functions = [slow]; job_timeout = None", "job_timeout"),
    ],
    ids=["sync function", "no timeout"],
)
def test_what_arq_refuses_is_told_in_a_line(
    command: list[str], body: str, told: str, surroundings: dict[str, str], tmp_path: Path
) -> None:
    """With the settings class before it, and no traceback."""
    functions = "def work(ctx): pass\nasync def slow(ctx): pass\n"
    (tmp_path / "wrong.py").write_text(f"{functions}class WorkerSettings:\n    {body}\n")
    environment = surroundings | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    environment["REDIS_URL"] = environment["SERVICE_REDIS"]

    done = warm.run_elsewhere("arqonce", *command, "wrong.WorkerSettings", env=environment, cwd=tmp_path)

    assert done.returncode in {1, 2}
    assert "Traceback" not in done.stderr
    assert told in done.stdout + done.stderr


def test_arq_check_names_what_json_changes_of_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In unions, too; and nothing of what comes out of JSON as it went in, under whatever name."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "typed.py").write_text(
        "from collections.abc import Mapping, Sequence\nfrom datetime import date\nfrom pathlib import Path\n"
        "from typing import Any, NamedTuple, Optional, TypedDict\n"
        "class Pair(NamedTuple):\n    one: int\nclass Fields(TypedDict):\n    one: int\n"
        "async def work(ctx, same: Sequence[int], also: Mapping[str, Any], other: object, fields: Fields,\n"
        "    none: int | None, any_of: Any, day: date | None, pair: Optional[Pair], file: str | Path): ...\n"
        "class WorkerSettings:\n    functions = [work]\n"
    )

    found = find_differences(load_service("typed.WorkerSettings"))

    assert {(one.level, one.where) for one in found if one.where != "job_deserializer"} == {
        ("warning", "work(day: date)"),
        ("warning", "work(pair: Pair)"),
        ("error", "work(file: Path)"),
    }


def test_a_function_that_is_given_twice_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two functions of one name are an error still."""
    code = "async def work(ctx): ...\nasync def other(ctx): ...\nother.__qualname__ = 'work'\n"
    monkeypatch.syspath_prepend(tmp_path)
    for name, functions in {"twice": "work, work", "two": "work, other"}.items():
        (tmp_path / f"given_{name}.py").write_text(f"{code}class WorkerSettings:\n    functions = [{functions}]\n")

    twice, two = (
        [one for one in find_differences(load_service(f"given_{name}.WorkerSettings")) if one.where == "work"]
        for name in ("twice", "two")
    )

    assert [(one.level, one.what) for one in twice] == [("note", "it is listed twice: the last counts")]
    assert [(one.level, one.what) for one in two] == [("error", "two functions have this name: arq runs the last")]
