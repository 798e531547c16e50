"""The command line, as scripts and people use it: real processes, exit codes, and what is printed where."""

import asyncio
import csv
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.commands.enqueue import OWN_OPTIONS
from jobs.registry import REGISTRY
from tests import warm
from tests.conftest import StartWorker, wait_until

pytestmark = pytest.mark.usefixtures("starts_processes")


@dataclass(frozen=True)
class CommandLine:
    """Runs ``users-worker`` with the servers of the tests."""

    environment: dict[str, str]

    def __call__(self, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run to the end."""
        command = [sys.executable, "-m", "worker", *arguments]
        return warm.run(command, self.environment | {"NO_COLOR": "1", "COLUMNS": "120"} | variables, timeout=120)


@pytest.fixture
def command_line(environment: dict[str, str], redis: Redis) -> CommandLine:
    """Yield the command line over an empty queue."""
    assert redis is not None
    return CommandLine(environment)


@pytest.fixture
def _worker(start_worker: StartWorker, sessions: async_sessionmaker[AsyncSession]) -> None:
    assert sessions is not None  # it removes the users afterwards
    start_worker()


@pytest.mark.parametrize("command", [[], ["run"], ["dev"], ["demo"], ["migrate"], ["import"], ["status"], ["health"],
                                     ["new-job"], ["enqueue"], ["enqueue", "create_user"], ["schema"]])  # fmt: skip
def test_every_command_explains_itself(command: list[str]) -> None:
    """``--help`` works with no settings and no server, and has more to say than the usage."""
    done = CommandLine(warm.bare_environment() | {"PATH": os.environ["PATH"]})(*command, "--help")

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) > 5


def test_the_help_tells_the_exit_codes() -> None:
    """A script's author finds them where they are looked for."""
    done = CommandLine({"PYTHONPATH": "."})("--help")

    assert "0 ok, 1 failed, 2 usage, 3 settings, 4 unavailable" in done.stdout


def test_no_field_of_a_job_hides_an_option() -> None:
    """The options of enqueue and the fields of a payload share one name space."""
    clashes = {(spec.name, field) for spec in REGISTRY for field in spec.payload.model_fields if field in OWN_OPTIONS}

    assert clashes == set()


@pytest.mark.usefixtures("_worker")
def test_enqueue_and_wait_prints_the_result(command_line: CommandLine) -> None:
    """The result alone on standard output: JSON that a pipe can read."""
    done = command_line("enqueue", "create_user", "--name", "Zoë", "--email", "Zoe@Example.org", "--wait")

    assert done.returncode == 0, done.stderr
    assert {"name": "Zoë", "email": "zoe@example.org"}.items() <= json.loads(done.stdout).items()


@pytest.mark.usefixtures("_worker")
def test_a_failed_job_is_one_line_and_exit_code_1(command_line: CommandLine) -> None:
    """The failure's type and its cure."""
    arguments = ("enqueue", "create_user", "--name", "Zoë", "--email", "zoe@example.org", "--wait", "--json")
    command_line(*arguments)

    done = command_line(*arguments)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("users-worker: email_taken: another user has this e-mail")


@pytest.mark.usefixtures("_worker")
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


def test_status_counts_the_queue(command_line: CommandLine) -> None:
    """Waiting, deferred, running, and how long the oldest has waited; as JSON and as a table."""
    command_line("enqueue", "find_user", "--id", "1", "--key", "one")
    command_line("enqueue", "find_user", "--id", "1", "--key", "two")
    command_line("enqueue", "find_user", "--id", "1", "--delay", "1h")
    with SyncRedis.from_url(command_line.environment["REDIS_URL"]) as redis:
        redis.set("arq:in-progress:one", "1")

    found = json.loads(command_line("status", "--json").stdout)
    table = command_line("status").stdout

    age = found.pop("oldest_waiting_seconds")
    assert found == {"waiting": 1, "running": 1, "deferred": 1}
    assert 0 < age < 60
    assert "oldest waiting" in table


@pytest.mark.usefixtures("_worker")
def test_import_stores_people_and_lists_the_refused(command_line: CommandLine, tmp_path: Path) -> None:
    """Counts on standard output, refused rows beside the input, exit code 1 if there are any."""
    file = tmp_path / "some people.csv"
    rows = [f"User {number},user{number}@example.org" for number in range(1200)]
    file.write_bytes(
        "\n".join(["name,email", *rows, ",empty@example.org", "Zoë,nonsense", "Nobody,"]).encode() + b"\nR\xe9,\n"
    )

    first = command_line("import", str(file), "--json")
    again = command_line("import", str(file))

    refused = file.with_name("some people.refused.csv")
    with refused.open(newline="") as output:
        listed = list(csv.reader(output))
    assert (first.returncode, again.returncode) == (1, 1)
    assert json.loads(first.stdout) == {
        "created": 1201, "existing": 0, "refused": 3, "refused_file": str(refused)
    }  # fmt: skip
    assert "created 0, already there 1,201, refused 3" in again.stdout
    assert [row[0] for row in listed] == ["line", "1202", "1203", "1205"]
    assert listed[2] == ["1203", "email: is not an e-mail address such as jane@example.org", "Zoë,nonsense"]


@pytest.mark.usefixtures("_worker")
def test_equal_people_without_email_are_all_stored(command_line: CommandLine, tmp_path: Path) -> None:
    """A thousand John Smiths are a thousand people; imported again, they are recognised."""
    file = tmp_path / "people.csv"
    file.write_text("name,email\n" + "John Smith,\n" * 1000)

    done = [json.loads(command_line("import", str(file), "--json").stdout) for _ in range(2)]

    assert [(one["created"], one["existing"]) for one in done] == [(1000, 0), (0, 1000)]


@pytest.mark.usefixtures("_worker")
async def test_an_import_that_failed_can_be_done_again(
    command_line: CommandLine, tmp_path: Path, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """The failure of the first try is kept for an hour, and must not answer the second."""
    file = tmp_path / "people.csv"
    file.write_text("name,email\nAnn,\n")
    async with sessions.begin() as session:
        await session.execute(text("ALTER TABLE users RENAME TO away"))
    broken = await asyncio.to_thread(command_line, "import", str(file), "--json")
    async with sessions.begin() as session:
        await session.execute(text("ALTER TABLE away RENAME TO users"))

    mended = await asyncio.to_thread(command_line, "import", str(file), "--json")

    assert json.loads(broken.stdout)["refused"] == 1
    assert json.loads(mended.stdout)["created"] == 1


@pytest.mark.usefixtures("_worker")
def test_the_list_of_refused_rows_is_for_its_owner_alone(command_line: CommandLine, tmp_path: Path) -> None:
    """It holds people's data; a file of somebody else in its place is neither overwritten nor followed."""
    file, refused = tmp_path / "people.csv", tmp_path / "people.refused.csv"
    file.write_text("name,email\n,\n")
    first = command_line("import", str(file))
    mode = stat.S_IMODE(refused.stat().st_mode)
    refused.write_text("mine")
    foreign = command_line("import", str(file))
    refused.unlink()
    refused.symlink_to(tmp_path / "elsewhere")
    link = command_line("import", str(file))

    assert (first.returncode, mode) == (1, 0o600)
    assert (foreign.returncode, link.returncode) == (2, 2)
    assert "move it away" in foreign.stderr
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.usefixtures("_worker")
def test_an_import_without_fault_leaves_no_list(command_line: CommandLine, tmp_path: Path) -> None:
    """Nor that of an earlier try; the exit code is 0."""
    file, refused = tmp_path / "people.csv", tmp_path / "people.refused.csv"
    file.write_text("name,email\nAnn,ann@example.org\n")
    refused.write_text("line,reason,row\r\n2,old,old\r\n")

    done = command_line("import", str(file))

    assert (done.returncode, refused.exists()) == (0, False), done.stderr


def test_migrate_says_what_it_did(command_line: CommandLine) -> None:
    """Twice is once."""
    done = [command_line("migrate") for _ in range(2)]

    assert [one.returncode for one in done] == [0, 0]
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
    assert "created 9,847, already there 0, refused 153" in first.stdout
    assert "created 0, already there 9,847, refused 153" in second.stdout
    assert len((data / "people.refused.csv").read_text().splitlines()) == 154
    ready = next(line for line in (data / "worker.log").read_text().splitlines() if '"worker ready"' in line)
    assert [_is_listening(json.loads(ready)[server]) for server in ("database", "redis")] == [False, False]


def _is_listening(location: str) -> bool:
    host, port = location.split("/", maxsplit=1)[0].split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_dev_runs_until_it_is_stopped(tmp_path: Path, stop: signal.Signals) -> None:
    """It prints the two URLs, they work, and nothing is left behind."""
    data, output = tmp_path / "dev", tmp_path / "output"
    with output.open("wb") as out:
        dev = subprocess.Popen(
            [sys.executable, "-m", "worker", "dev", "--data", str(data)],
            env={"PYTHONPATH": ".", "PATH": os.environ["PATH"]}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        wait_until(lambda: dev.poll() is not None or "a worker is running" in output.read_text(), 60)
        lines = output.read_text().splitlines()
        urls = dict(line.removeprefix("export ").split("=", 1) for line in lines if line.startswith("export "))
        environment = {name: value.strip("'") for name, value in urls.items()} | warm.bare_environment()
        done = CommandLine(environment)("enqueue", "create_user", "--name", "Jane", "--wait", "--json")
    finally:
        dev.send_signal(stop)
        code = dev.wait(60)

    assert json.loads(done.stdout)["result"]["name"] == "Jane", output.read_text()
    assert code == 0
    assert [_is_listening(url.strip("'").rpartition("@")[2].removeprefix("redis://")) for url in urls.values()] == [
        False,
        False,
    ]


def test_a_killed_dev_leaves_nothing_behind(tmp_path: Path) -> None:
    """Servers and worker end with their owner, also when that cannot say so any more."""
    output = tmp_path / "output"
    with output.open("wb") as out:
        dev = subprocess.Popen(
            [sys.executable, "-m", "worker", "dev", "--data", str(tmp_path / "dev")],
            env={"PYTHONPATH": ".", "PATH": os.environ["PATH"], "WORKER_LOG_FORMAT": "json"},
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    wait_until(lambda: dev.poll() is not None or "a worker is running" in output.read_text(), 60)

    dev.kill()
    dev.wait()

    wait_until(lambda: '"worker stopped"' in output.read_text(), 30)


def test_dev_twice_in_one_directory_is_refused(tmp_path: Path) -> None:
    """The second says who holds it, and harms nothing."""
    data, output = tmp_path / "dev", tmp_path / "output"
    command_line = CommandLine({"PYTHONPATH": ".", "PATH": os.environ["PATH"]})
    with output.open("wb") as out:
        dev = subprocess.Popen(
            [sys.executable, "-m", "worker", "dev", "--data", str(data)],
            env=command_line.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    try:
        wait_until(lambda: dev.poll() is not None or "a worker is running" in output.read_text(), 60)
        second = command_line("dev", "--data", str(data))
    finally:
        dev.terminate()
        dev.wait(60)

    assert second.returncode == 4
    assert str(dev.pid) in second.stderr
    assert "Traceback" not in second.stderr
