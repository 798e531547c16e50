"""The command line, as scripts and people use it: real processes, exit codes, and what is printed where."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import pytest
from pydantic import AliasChoices, Field, create_model
from redis import Redis as SyncRedis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from typer.testing import CliRunner

from arqonce.commands.enqueue import OWN_OPTIONS, _flags, build_enqueue_app
from arqonce.payloads import Payload, Result
from arqonce.spec import JobSpec, Registry
from arqonce.testing.programs import Process
from tests import warm
from tests.conftest import children_of, wait_until
from tests.worker.command_line import CommandLine

pytestmark = pytest.mark.usefixtures("starts_processes")


@pytest.mark.parametrize("command", [[], ["run"], ["dev"], ["demo"], ["migrate"], ["import"], ["status"], ["health"],
                                     ["new-job"], ["enqueue"], ["enqueue", "create_user"], ["schema"]])  # fmt: skip
def test_every_command_explains_itself(command: list[str]) -> None:
    """``--help`` works with no settings and no server, and has more to say than the usage."""
    done = CommandLine(warm.bare_environment() | {"PATH": os.environ["PATH"]})(*command, "--help")

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 5


def test_the_help_tells_the_exit_codes() -> None:
    """A script's author finds them where they are looked for."""
    done = CommandLine(warm.bare_environment())("--help")

    assert "0 ok, 1 failed, 2 usage, 3 settings, 4 unavailable" in done.stdout


def test_a_field_hides_no_option_of_the_same_name(monkeypatch: pytest.MonkeyPatch, valkey_url: str) -> None:
    """Both can be given: the option of the command begins with --job- then."""
    monkeypatch.setenv("REDIS_URL", valkey_url)
    fields: dict[str, Any] = dict.fromkeys(OWN_OPTIONS.keys() - {"json"}, (str | None, None))
    kind = create_model("Kind", __base__=Payload[Result], job_name=(ClassVar[str], "kind"), **fields)

    async def handle(session: object, payload: object) -> Result:
        raise NotImplementedError

    other = create_model("Other", __base__=Payload[Result], job_name=(ClassVar[str], "other"))
    app = build_enqueue_app(Registry(JobSpec(kind, handle), JobSpec(other, handle)))
    done = CliRunner().invoke(app, ["kind", "--key", "field", "--job-key", "k1", "--expires", "e", "--json"])

    with SyncRedis.from_url(valkey_url) as redis:
        message = json.loads(redis.get("arq:job:k1") or b"{}")
    assert (done.exit_code, json.loads(done.stdout)["job_id"]) == (0, "k1"), done.output
    assert message["k"] == {"key": "field", "expires": "e"}


def test_a_field_has_an_option_for_each_of_its_names() -> None:
    """Former names, which scripts may still have, and hyphens; none of them in place of an option of every job."""
    fields: dict[str, Any] = dict.fromkeys(("user_id", "key", "job_key"), (int, 0))
    fields["full_name"] = (str, Field(default="", validation_alias=AliasChoices("full_name", "name", "key")))
    kind = create_model("Kind", __base__=Payload[Result], job_name=(ClassVar[str], "kind"), **fields)

    flags = {name: _flags(name, field, kind) for name, field in kind.model_fields.items()}

    assert flags == {
        "user_id": ["--user_id", "--user-id"],
        "key": ["--key"],
        "job_key": ["--job_key"],
        "full_name": ["--full_name", "--full-name", "--name"],
    }


def test_times_of_a_job_are_given_as_durations(command_line: CommandLine) -> None:
    """The second request is the first one's job; what cannot be meant is refused with the option's name."""
    arguments = ("enqueue", "create_user", "--name", "Zoë", "--unique-for", "10m", "--expires", "1h", "--json")
    first, second = (json.loads(command_line(*arguments).stdout) for _ in range(2))
    wrong = command_line("enqueue", "create_user", "--name", "Zoë", "--expires", "soon")
    never = command_line("enqueue", "create_user", "--name", "Zoë", "--expires", "1h", "--delay", "2h")

    assert (first["outcome"], second) == ("new", {"job_id": first["job_id"], "outcome": "duplicate"})
    assert (wrong.returncode, "--expires" in wrong.stderr) == (2, True)
    assert (never.returncode, "would expire before it is due" in never.stderr) == (2, True)


@pytest.mark.usefixtures("worker")
def test_enqueue_and_wait_prints_the_result(command_line: CommandLine) -> None:
    """The result alone on standard output: JSON that a pipe can read."""
    done = command_line("enqueue", "create_user", "--name", "Zoë", "--email", "Zoe@Example.org", "--wait")

    assert done.returncode == 0, done.stderr
    assert {"name": "Zoë", "email": "zoe@example.org"}.items() <= json.loads(done.stdout).items()


@pytest.mark.usefixtures("worker")
def test_a_failed_job_is_one_line_and_exit_code_1(command_line: CommandLine) -> None:
    """The failure's type and its cure."""
    arguments = ("enqueue", "create_user", "--name", "Zoë", "--email", "zoe@example.org", "--wait", "--json")
    command_line(*arguments)

    done = command_line(*arguments)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("users-worker: email_taken: another user has this e-mail")


@pytest.mark.usefixtures("worker")
def test_lists_are_given_as_json_and_numbers_as_text(command_line: CommandLine) -> None:
    """Every job of the registry can be enqueued from a shell."""
    stored = command_line("enqueue", "create_users", "--users", '[{"name": "Ann"}]', "--wait", "--json")
    user_id = json.loads(stored.stdout)["result"]["users"][0]["id"]

    found = command_line("enqueue", "find_user", "--id", str(user_id), "--wait", "--json")

    assert [user["name"] for user in json.loads(found.stdout)["result"]["users"]] == ["Ann"]


def test_a_key_makes_enqueue_repeatable(command_line: CommandLine) -> None:
    """The second call says so."""
    outcomes = [
        json.loads(command_line("enqueue", "find_user", "--id", "1", "--key", "k", "--json").stdout) for _ in range(2)
    ]

    assert outcomes == [{"job_id": "k", "outcome": "new"}, {"job_id": "k", "outcome": "duplicate"}]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["enqueue", "create_user"], "create_user: name: Field required. Its fields are: name, email"),
        (["enqueue", "create_user", "--name", "x", "--email", "y"], "email: is not an e-mail address"),
        (["enqueue", "create_users", "--users", "nonsense"], "--users is not JSON"),
        (["enqueue", "find_user", "--id", "x"], "id: Input should be a valid integer"),
        (["enqueue", "find_user", "--id", "1", "--delay", "soon"], "is not a duration"),
        (["enqueue", "find_user", "--id", "1", "--key", "a b"], "the key must be"),
        (["enqueue", "no_such_job"], "No such command 'no_such_job'"),
        (["enqueue", "create_user", "--nme", "x"], "--nme"),
        (["import", "no-such-file.csv"], "cannot read no-such-file.csv: No such file"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_sent(
    command_line: CommandLine, valkey_url: str, arguments: list[str], text: str
) -> None:
    """Exit code 2, the cure on standard error, an empty queue."""
    done = command_line(*arguments)

    with SyncRedis.from_url(valkey_url) as redis:
        sent = redis.dbsize()
    assert (done.returncode, sent) == (2, 0), done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["status"], ["enqueue", "find_user", "--id", "1"], ["import", "people.csv"]])
def test_a_redis_that_is_not_there_is_exit_code_4(
    command_line: CommandLine, tmp_path: Path, command: list[str]
) -> None:
    """One line with the cure."""
    people = tmp_path / "people.csv"
    people.write_text("name,email\nAnn,\n")
    arguments = [str(people) if argument == "people.csv" else argument for argument in command]

    done = command_line(*arguments, REDIS_URL="redis://127.0.0.1:1/0")

    assert done.returncode == 4
    assert "users-worker: Redis at 127.0.0.1:1/0 cannot be reached" in done.stderr


def test_no_result_in_time_is_exit_code_1(command_line: CommandLine) -> None:
    """Without a worker, the command ends and the job stays."""
    done = command_line("enqueue", "find_user", "--id", "1", "--wait", "--timeout", "300ms")

    assert done.returncode == 1
    assert "has no result after 0.3 s; it stays queued: is a worker running for the queue arq:queue?" in done.stderr


@pytest.mark.usefixtures("worker")
def test_a_wait_begins_when_the_job_is_due(command_line: CommandLine) -> None:
    """The timeout is not that of the delay; a job that waits for an attempt blames no worker."""
    late = command_line("enqueue", "find_user", "--id", "1", "--delay", "2s", "--wait", "--timeout", "20s")
    with SyncRedis.from_url(command_line.environment["REDIS_URL"]) as redis:
        redis.set("arq:job:again", '{"t":null,"f":"find_user","a":[],"k":{"id":1},"et":1}')
        redis.zadd("arq:queue", {"again": 9e12})
        again = command_line("enqueue", "find_user", "--id", "1", "--key", "again", "--wait", "--timeout", "100ms")

    assert (late.returncode, json.loads(late.stdout)) == (0, {"users": []}), late.stderr
    assert "its next attempt is due at " in again.stderr
    assert (again.returncode, "is a worker running" in again.stderr) == (1, False)


def test_a_burst_says_that_it_waits(command_line: CommandLine) -> None:
    """Once, for a job that is due later; then it runs it, and ends."""
    command_line("enqueue", "find_user", "--id", "1", "--delay", "1500ms")

    done = command_line("run", "--burst", WORKER_LOG_LEVEL="INFO")

    assert (done.returncode, done.stderr.count("the burst waits for jobs that are not due")) == (0, 1), done.stderr
    assert '"job done"' in done.stderr


@pytest.mark.parametrize(
    ("command", "settings", "told"),
    [
        (["status"], {"REDIS_URL": "redis://nowhere.invalid:6379"}, "the name of its host is not known"),
        (["run", "--registry", "no.such:X"], {}, "users-worker: --registry: no.such:X: there is no module no"),
        (["run"], {"WORKER_REGISTRY": "no.such:X"}, "users-worker: WORKER_REGISTRY: no.such:X: there is no module no"),
        (["run"], {"DATABASE_URL": ""}, "PostgreSQL records how the registry's 4 jobs, such as create_user, end"),
    ],
)
def test_what_was_typed_is_named_with_its_cause(
    command_line: CommandLine, command: list[str], settings: dict[str, str], told: str
) -> None:
    """The option or the setting; a host by its name; and who needs a server that is not named."""
    done = command_line(*command, **settings)

    assert told in done.stderr
    assert done.returncode in {3, 4}


def test_status_counts_the_queue(command_line: CommandLine) -> None:
    """Waiting, deferred, running, and how long the oldest has waited; as JSON and as a table."""
    command_line("enqueue", "find_user", "--id", "1", "--key", "one")
    command_line("enqueue", "find_user", "--id", "1", "--key", "two")
    command_line("enqueue", "find_user", "--id", "1", "--delay", "1h")
    with SyncRedis.from_url(command_line.environment["REDIS_URL"]) as redis:
        redis.set("arq:in-progress:one", "1")

    found = json.loads(command_line("status", "--json").stdout)
    table = command_line("status").stdout.splitlines()

    age = found.pop("oldest_waiting_seconds")
    not_paused = {"parked": 0, "held": 0, "paused": False, "paused_kinds": []}
    assert ({"waiting": 1, "running": 1, "deferred": 1} | not_paused).items() <= found.items()
    assert 0 < age < 60
    assert [line.split("\t")[:-1] for line in table[:2]] == [["waiting", "running", "deferred"], ["1", "1", "1"]]


async def test_migrate_says_what_it_did(command_line: CommandLine, sessions: async_sessionmaker[AsyncSession]) -> None:
    """Twice is once. Acts that are too old leave the audit."""
    acts = text("""
        INSERT INTO arqonce.audit (at, who, act, target, number)
        SELECT now() - days * interval '1 day', 'jane', 'x', 'x', 1 FROM unnest(ARRAY[399, 401]) AS days
    """)
    async with sessions.begin() as session:
        await session.execute(acts)
    done = [command_line("migrate") for _ in range(2)]
    kept = command_line("audit", "list").stdout.splitlines()

    assert [one.returncode for one in done] == [0, 0]
    assert ["removed 1 acts from the audit" in one.stdout for one in done] == [True, False]
    assert len(kept) == 1 + 1  # the titles, and the younger one
    assert "is up to date" in done[1].stdout
    assert "applied" not in done[1].stdout  # the tests' database had them all


def test_migrate_without_a_database_is_exit_code_4(command_line: CommandLine) -> None:
    """With the cure."""
    done = command_line("migrate", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")

    assert done.returncode == 4
    assert "PostgreSQL at 127.0.0.1:1/none cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_demo_shows_jane_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """The line of the article, a POST and a GET, an import with its counts, and no process after it; twice."""
    data = tmp_path / "demo data"
    command_line = CommandLine({"PYTHONPATH": ".", "PATH": os.environ["PATH"]})

    first = command_line("demo", "--data", str(data))
    second = command_line("demo", "--data", str(data))

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "User ID: 1, Name: Jane" in first.stdout.splitlines()
    assert "User ID: 1, Name: Jane" in second.stdout.splitlines()
    for output in (first.stdout, second.stdout):
        assert 'POST /users {"name": "Joan"}: 201 {"id":2,"name":"Joan",' in output
        assert 'GET /user?name=Joan: 200 {"id":2,"name":"Joan"}' in output
    assert "created 9,852, already there 0, refused 148" in first.stdout
    assert "created 0, already there 9,852, refused 148" in second.stdout
    assert len((data / "people.refused.csv").read_text().splitlines()) == 149
    ready = next(line for line in (data / "worker.log").read_text().splitlines() if '"worker ready"' in line)
    assert [_is_listening(json.loads(ready)[server]) for server in ("database", "redis")] == [False, False]


def _is_listening(location: str) -> bool:
    host, port = location.split("/", maxsplit=1)[0].split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def _start_dev(data: Path, output: Path) -> Process:
    environment = warm.bare_environment() | {"PATH": os.environ["PATH"], "WORKER_LOG_FORMAT": "json"}
    return warm.programs().start("worker", "dev", "--data", str(data), environment=environment, output=output)


async def _log_in(console: str, token: str) -> str:
    """Do what the page's script does with the address that dev prints."""
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http,
        http.post(f"{console}/log-in", data={"token": token}, headers={"Origin": console}) as response,
    ):
        return await response.text()


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_dev_runs_until_it_is_stopped(tmp_path: Path, stop: signal.Signals) -> None:
    """It prints the two URLs, they work, and nothing is left behind."""
    data, output = tmp_path / "dev", tmp_path / "output"
    dev = _start_dev(data, output)
    try:
        wait_until(lambda: dev.poll() is not None or "a worker is running" in output.read_text(), 60)
        lines = output.read_text().splitlines()
        urls = dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))
        environment = {name: value.strip("'") for name, value in urls.items()} | warm.bare_environment()
        done = CommandLine(environment)("enqueue", "create_user", "--name", "Jane", "--wait", "--json")
        wait_until(lambda: "look at it" in output.read_text(), 30)
        page = output.read_text().partition("look at it, as an operator: ")[2].split()[0]
        logged_in = asyncio.run(_log_in(*page.split("/log-in#")))
    finally:
        dev.send_signal(stop)
        code = dev.wait(60)

    assert json.loads(done.stdout)["result"]["name"] == "Jane", output.read_text()
    assert "Needs attention" in logged_in
    assert code == 0
    assert [_is_listening(url.strip("'").rpartition("@")[2].removeprefix("redis://")) for url in urls.values()] == [
        False,
        False,
    ]


def test_a_killed_dev_leaves_nothing_behind(tmp_path: Path) -> None:
    """Servers and worker end with their owner, also when that cannot say so any more."""
    output = tmp_path / "output"
    dev = _start_dev(tmp_path / "dev", output)
    wait_until(lambda: dev.poll() is not None or "a worker is running" in output.read_text(), 60)

    dev.kill()
    dev.wait()

    wait_until(lambda: '"worker stopped"' in output.read_text(), 30)


def test_dev_ends_when_a_server_has_ended(tmp_path: Path) -> None:
    """It names the server and its log; the worker would wait for it for ever."""
    data, output = tmp_path / "dev", tmp_path / "output"
    with output.open("wb") as out:
        dev = subprocess.Popen(
            [sys.executable, "-m", "worker", "dev", "--data", str(data)],
            env={"PYTHONPATH": ".", "PATH": os.environ["PATH"]}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    wait_until(lambda: dev.poll() is not None or "a worker is running" in output.read_text(), 60)

    os.kill(int((data / "postgres" / "data" / "postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
    code = dev.wait(60)

    assert code == 4
    assert f"PostgreSQL ended with code 0, see {data}/postgres/postgres.log. Cure: start again" in output.read_text()


def test_a_second_dev_is_refused_and_the_first_ends_with_its_worker(tmp_path: Path) -> None:
    """The second says who holds the directory, and harms nothing; the first says that the worker was killed."""
    data, output = tmp_path / "dev", tmp_path / "output"
    dev = _start_dev(data, output)
    try:
        wait_until(lambda: dev.poll() is not None or "a worker is running" in output.read_text(), 60)
        second = CommandLine(warm.bare_environment())("dev", "--data", str(data))
        (worker,) = [pid for pid in children_of(dev.pid) if b"\0run\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        os.kill(worker, signal.SIGKILL)
        code = dev.wait(60)
    finally:
        dev.terminate()
        dev.wait(60)

    assert code == 4
    assert "the worker was ended by SIGKILL. Cure: start again; what was stored is kept." in output.read_text()
    assert second.returncode == 4
    assert str(dev.pid) in second.stderr
    assert "Traceback" not in second.stderr
