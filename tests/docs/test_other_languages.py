"""Every program of docs/other-languages.md does what the text says, with no more than a producer's rights."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.client.answers import JobInfo
from arqonce.client.requests import abort_commands
from arqonce.contract.document import build_schemas
from arqonce.contract.redis import describe_redis
from arqonce.wire.status import JobStatus
from jobs.registry import REGISTRY
from tests.conftest import StartWorker, wait_until_async
from tests.docs.blocks import ROOT, blocks_in, text_of
from tests.programs import require
from tests.rights import Rights

pytestmark = pytest.mark.usefixtures("starts_processes")

PAGE = "docs/other-languages.md"
TEXT = text_of(PAGE)
NODE = Path(__file__).parent / "node"

FILES = {"js": "sign-up.mjs", "php": "sign-up.php", "sh": "sign-up.sh"}
"""Under which name each program is saved, which its first line says as well."""

EXPIRY_MS = describe_redis()["message_expiry_ms"]

SignUp = Callable[..., "subprocess.CompletedProcess[str]"]


def _blocks(language: str) -> list[str]:
    return [block.code for block in blocks_in(PAGE, language)]


COMMANDS = [shlex.split(line) for block in _blocks("console") for line in block.splitlines()]


@pytest.fixture
def rights(with_least_rights: Rights) -> Rights:
    """Give producers and workers what ``deploy/`` gives them."""
    return with_least_rights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the folder of a service: the contract, by the document's own command, and the programs."""
    folder = tmp_path_factory.mktemp("service")
    (command,) = [command for command in COMMANDS if command[0] == "users-worker"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    program = Path(sys.executable).parent / command[0]
    subprocess.run([program, *command[1:]], cwd=folder, env=environment, check=True, capture_output=True)
    for language, name in FILES.items():
        (program_text,) = _blocks(language)
        assert name in program_text.splitlines()[0]
        (folder / name).write_text(program_text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def node_folder(folder: Path) -> Path:
    """Install what the document installs, in locked versions."""
    require("node", "npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE / name, folder)
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture(params=FILES)
def language(request: pytest.FixtureRequest) -> str:
    """Run the test in each language whose programs are installed."""
    language: str = request.param
    if language == "js":
        request.getfixturevalue("node_folder")
    elif language == "sh":
        require("jq", "redis-cli")
    else:
        require("php")
        loaded = subprocess.run(["php", "-r", "exit((int) !class_exists('Redis'));"], check=False).returncode == 0
        require(*([] if loaded else ["php-redis"]))
    return language


@pytest.fixture
def command(language: str) -> list[str]:
    """Return the document's command for the program."""
    (command,) = [command for command in COMMANDS if FILES[language] in command]
    return command


@pytest.fixture
def sign_up(command: list[str], folder: Path, rights: Rights) -> SignUp:
    """Return what runs the program, as in the document or with other arguments."""

    def run(*arguments: str, redis_url: str = rights.producer_redis) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*command[:2], *(arguments or command[2:])], cwd=folder, env=os.environ | {"REDIS_URL": redis_url},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    return run


@pytest.fixture
def _worker(start_worker: StartWorker, sessions: async_sessionmaker[AsyncSession]) -> None:
    assert sessions is not None  # it removes the users afterwards
    start_worker()


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    """A block in another language would be executed by nobody."""
    assert {block.kind for block in blocks_in(PAGE)} == {"console", *FILES}
    assert {command[0] for command in COMMANDS} == {"users-worker", "npm", "node", "php", "sh"}


def test_npm_installs_what_the_document_says_in_locked_versions() -> None:
    """The lock names no registry: each machine has its own."""
    (install,) = [command for command in COMMANDS if command[0] == "npm"]
    lock = json.loads((NODE / "package-lock.json").read_text(encoding="utf-8"))["packages"]

    assert set(install[2:]) == lock[""]["dependencies"].keys()
    for name, package in lock.items():
        assert not name or ("integrity" in package and "resolved" not in package), name


def test_the_expiry_is_that_of_the_contract() -> None:
    """In the text, and in the short program of docs/producing.md."""
    assert f"{EXPIRY_MS:,} ms" in TEXT
    assert f'type: "PX", value: {EXPIRY_MS:_} ' in text_of("docs/producing.md")


def test_a_job_is_aborted_with_the_commands_of_our_clients() -> None:
    """The second one for a job that waits."""
    waits = JobInfo(job_id="<id>", status=JobStatus.DEFERRED)
    commands = [" ".join(map(str, words)) for words in abort_commands("arq:queue", waits, is_promised=False)]

    asked = re.sub(r"\d{13}", "<now>", commands[0]), commands[1]
    assert re.findall("`(ZADD [^`]+)`", TEXT.partition("**To abort a job**")[2].partition("\n\n")[0]) == list(asked)


def test_without_the_contract_nothing_is_sent(tmp_path: Path) -> None:
    """The shell names the file, and not a key that was used."""
    require("jq")
    (program,) = _blocks("sh")
    shell = ["sh", "-c", program, "sign-up.sh", "order-1", "Jane"]

    done = subprocess.run(
        shell, cwd=tmp_path, env=os.environ | {"REDIS_URL": "redis://127.0.0.1:1"}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode != 0
    assert re.fullmatch("jq: .*contract/asyncapi.json.*\n", done.stderr)


def test_the_table_of_failures_knows_every_kind() -> None:
    """Except for what only promises in PostgreSQL get, and the name of the class that is none."""
    rows = TEXT.partition("## When a job fails")[2].partition("\n## ")[0].splitlines()
    told = {
        kind
        for row in rows
        if row.startswith("| `") and "| means |" not in row
        for kind in re.findall(r"`(\w+)`", row.split("|")[1])
    }
    kinds = build_schemas(REGISTRY)["failure.schema.json"]["properties"]["type"]["anyOf"]

    assert told == {kind["const"] for kind in kinds if "const" in kind} - {"promise_expired", "job_failed"}


@pytest.mark.usefixtures("_worker")
def test_the_program_gets_its_user(command: list[str], sign_up: SignUp) -> None:
    """Nothing but the answer is printed."""
    done = sign_up()

    answer = json.loads(done.stdout)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    assert [answer["name"], answer["email"]] == [*command[3:], None][:2]


@pytest.mark.usefixtures("_worker")
async def test_a_key_is_for_one_request(sign_up: SignUp, redis: Redis) -> None:
    """Another one is dropped while the first one's result is kept, and fails after that."""
    first = sign_up("order-1", "Jane")
    dropped = sign_up("order-1", "Joan")
    await redis.delete("arq:result:order-1")  # as an hour does
    refused = sign_up("order-1", "Joan")

    assert (dropped.returncode, dropped.stdout) == (0, first.stdout)
    assert "order-1 was used" in dropped.stderr
    assert refused.returncode == 1
    assert "request_conflict" in refused.stdout + refused.stderr


@pytest.mark.usefixtures("_worker")
def test_a_failure_is_told_by_its_type(sign_up: SignUp) -> None:
    """The exit code is 1; PHP's program has a sentence of its own for this one."""
    sign_up("order-1", "Jane", "jane@example.org")

    done = sign_up("order-2", "Joan", "jane@example.org")

    assert done.returncode == 1
    assert re.search('"type":"email_taken"|this address has an account', done.stdout + done.stderr)


@pytest.mark.usefixtures("_worker")
def test_a_name_is_never_a_command(sign_up: SignUp) -> None:
    """It is stored as it was typed."""
    name = "Zoë 李 O'Brien\" $(id) `id` \\n \\u0000 %s ${x} *; FLUSHALL"

    done = sign_up("order-1", name)

    assert (done.returncode, json.loads(done.stdout)["name"]) == (0, name)


@pytest.mark.usefixtures("_worker")
async def test_a_line_break_in_a_name_is_refused_as_such(sign_up: SignUp, redis: Redis) -> None:
    """It separates no commands: what stands behind it is not executed."""
    await redis.set("marker", "1")

    done = sign_up("order-1", "Jane'\nFLUSHALL\n")

    assert done.returncode in {1, 2}
    assert re.search("invalid_payload|must match pattern", done.stdout + done.stderr)
    assert await redis.get("marker") == b"1"


async def test_without_a_worker_the_wait_ends(folder: Path, language: str, sign_up: SignUp, redis: Redis) -> None:
    """The job stays queued, due when it should be and kept for its expiry from then on."""
    file = folder / FILES[language]
    text = file.read_text()
    file.write_text(re.sub(r"10_000\b", "300", text.replace("+ 10)", "+ 1)")))
    delay_ms = 500 if "delayMs: 500" in text else 0
    before = time.time_ns() // 1_000_000

    try:
        done = sign_up("order-1", "Jane")
    finally:
        file.write_text(text)

    due, left = await redis.zscore("arq:queue", "order-1"), await redis.pttl("arq:job:order-1")
    assert (done.returncode, done.stdout, done.stderr) == (1, "null\n", "")
    assert due is not None
    assert before + delay_ms - 1 <= due <= time.time_ns() // 1_000_000 + delay_ms
    assert EXPIRY_MS + delay_ms - 60_000 < left <= EXPIRY_MS + delay_ms


async def test_without_a_url_nothing_is_sent(sign_up: SignUp) -> None:
    """Not even to a Redis on this machine."""
    done = sign_up(redis_url="")

    assert done.returncode != 0
    assert "REDIS_URL" in done.stderr


async def test_without_redis_the_program_ends(sign_up: SignUp) -> None:
    """Not with 0."""
    done = sign_up(redis_url="redis://127.0.0.1:1")

    assert done.returncode != 0
    assert done.stderr


@pytest.mark.parametrize("language", ["js"], indirect=True)
async def test_what_the_schema_refuses_is_not_sent(sign_up: SignUp, redis: Redis) -> None:
    """The cause is told without the value."""
    done = sign_up("order-1", "Jane", "no address")

    assert (done.returncode, done.stdout) == (2, "")
    assert "/email must match pattern" in done.stderr
    assert "no address" not in done.stderr
    assert await redis.keys() == []


@pytest.mark.usefixtures("_worker")
async def test_scores_are_milliseconds(redis: Redis) -> None:
    """A job scored in seconds runs at once, whatever its delay; one in microseconds waits for ever."""
    now = time.time()
    message = json.dumps({"t": None, "f": "create_user", "a": [], "k": {"name": "Jane"}, "et": int(now * 1000)})
    await redis.mset({"arq:job:us": message, "arq:job:s": message})
    await redis.zadd("arq:queue", {"us": now * 1e6, "s": now + 3600, "no-message": now * 1000})

    async def both_have_ended() -> bool:
        return len(await redis.keys("arq:result:*")) == 2

    await wait_until_async(both_have_ended, 20)
    missing: dict[str, Any] = json.loads(await redis.get("arq:result:no-message") or "{}")
    assert missing["r"]["type"] == "message_missing"
    assert await redis.zrange("arq:queue", 0, -1) == [b"us"]
