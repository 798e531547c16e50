"""The page for arq services: its service is checked and run by its commands, from plain arq and back."""

import asyncio
import importlib
import os
import re
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool
from redis.asyncio import Redis

from arqonce import decode, encode
from tests import warm
from tests.conftest import StartWorker
from tests.docs.blocks import ROOT, Block, blocks_in

pytestmark = pytest.mark.usefixtures("starts_processes")

PAGE = "docs/from-arq.md"


def _blocks(language: str) -> list[Block]:
    return [block for block in blocks_in(PAGE) if block.language == language]


@pytest.fixture
def service(tmp_path: Path, valkey_url: str) -> Path:
    """Write the page's two files; the server is that of the tests."""
    worker, producer = [block.code for block in _blocks("python")]
    settings = f"RedisSettings.from_dsn({valkey_url!r})"
    (tmp_path / "worker.py").write_text(worker.replace("RedisSettings()", settings))
    (tmp_path / "producer.py").write_text(producer.replace("RedisSettings()", settings))
    return tmp_path


def _environment(service: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "REDIS_"))}
    return kept | {"PYTHONPATH": os.pathsep.join([str(service), str(ROOT)]), "WORKER_LOG_FORMAT": "json"}


def _commands() -> list[list[str]]:
    return [command for block in _blocks("console") for command in block.commands]


async def _answer(pool: ArqRedis) -> object:
    job = await pool.enqueue_job("price", "book", 2, _job_id=uuid4().hex)
    assert job is not None
    return await job.result(timeout=20, poll_delay=0.05)


async def test_the_service_of_the_page_runs_here_and_on_arq_again(
    service: Path, start_worker: StartWorker, redis: Redis, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the page's commands; then arq's own worker takes the same queue, with the page's two functions."""
    words = (["arqonce", "arq-check"], ["arqonce", "run"])
    check, run = [command[1:] for command in _commands() if command[:2] in words]
    checked = await asyncio.to_thread(warm.run_elsewhere, "arqonce", *check, env=_environment(service), cwd=service)
    pool = await create_pool(RedisSettings.from_dsn(valkey_url), job_serializer=encode, job_deserializer=decode)

    monkeypatch.chdir(service)
    plain = (sys.executable, "-W", "default", "-m")  # no fork: a module worker of ours is loaded there
    worker = start_worker(*plain, "arqonce", *run, **_environment(service) | {"DATABASE_URL": ""})
    here = await _answer(pool)
    await pool.enqueue_job("order", "book")
    assert worker.stop() == 0
    text = (service / "worker.py").read_text()
    both = "\n    job_serializer, job_deserializer = encode, decode\n"
    (service / "worker.py").write_text("from arqonce import decode, encode\n" + text.rstrip() + both)
    assert "--pickle" in run
    back = [str(Path(sys.executable).parent / "arq"), "worker.WorkerSettings", "--burst"]
    again = await pool.enqueue_job("price", "book", 3)
    process = await asyncio.create_subprocess_exec(*back, env=_environment(service), cwd=service)
    await process.wait()

    assert (checked.returncode, here) == (0, 40), checked.stderr
    assert again is not None
    assert await again.result(timeout=5, poll_delay=0.05) == 60
    assert redis is not None
    await pool.aclose()


async def test_the_pool_of_the_page_sends_json(service: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the workers read it."""
    monkeypatch.syspath_prepend(str(service))
    pool = await importlib.import_module("producer").open_pool()
    job = await pool.enqueue_job("price", "book", 1)

    message = await redis.get(f"arq:job:{job.job_id}")

    assert (decode(message)["f"], decode(message)["a"]) == ("price", ["book", 1])
    await pool.aclose()


def test_every_option_that_the_page_names_is_one() -> None:
    """Of run and of arq-check; and the commands with a registry parse."""
    text = (ROOT / PAGE).read_text()
    named = set(re.findall(r"`(--[a-z]+)", text))
    shown = "".join(
        warm.run_elsewhere("arqonce", command, "--help", env=os.environ | {"NO_COLOR": "1"}, cwd=ROOT).stdout
        for command in ("run", "arq-check")
    )

    assert {option for option in named if option not in shown} == set()
    assert [command[3] for command in _commands() if "--registry" in command] == ["migrate", "run"]
