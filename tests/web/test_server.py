"""The process: its end, and what it leaves open."""

import asyncio
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.conftest import wait_until, wait_until_async
from tests.warm import NOT_OURS
from tests.web.conftest import WebProcess
from tests.web.wire import NEXT, open_wire
from web import __main__ as web_command

JANE = {"name": "Jane", "email": "jane@example.org"}


async def test_told_to_stop_it_answers_who_waits_and_ends_with_0(service: WebProcess) -> None:
    """No worker runs: who would wait for 20 s gets the job's place at once."""
    waiting = asyncio.ensure_future(service.post("/users", JANE, Idempotency_Key="k1", Prefer="wait=20"))

    async def is_waiting() -> bool:
        return (await service.get("/jobs/k1")).status == 200

    await wait_until_async(is_waiting, 5)
    service.process.send_signal(signal.SIGTERM)
    answer = await asyncio.wait_for(waiting, 5)
    code = await asyncio.to_thread(service.process.wait, 10)

    assert (answer.status, answer.headers["Location"], code) == (202, "/jobs/k1", 0)


async def test_the_end_loses_no_request_that_was_sent(service: WebProcess) -> None:
    """Neither on a kept connection, as a proxy's are, nor on one that was made and not yet accepted."""
    async with open_wire(service.port) as kept, AsyncExitStack() as stack:
        await kept.send(NEXT)
        before = await kept.response()
        service.process.send_signal(signal.SIGSTOP)
        made = [await stack.enter_async_context(open_wire(service.port)) for _ in range(20)]
        service.process.send_signal(signal.SIGTERM)
        service.process.send_signal(signal.SIGCONT)
        await wait_until_async(lambda: asyncio.sleep(0, "told to stop" in service.log), 5)
        for wire in (kept, *made):
            await wire.send(NEXT)
        responses = [await wire.response() for wire in (kept, *made)]
    code = await asyncio.to_thread(service.process.wait, 10)

    ends = [(each.status, each.headers["connection"]) for each in responses if each is not None]
    assert before is not None and "connection" not in before.headers  # noqa: PT018
    assert (ends, code) == ([(404, "close")] * 21, 0)


@pytest.mark.usefixtures("starts_processes", "redis")
def test_a_start_by_python_warns_of_nothing(environment: dict[str, str], tmp_path: Path) -> None:
    """Nor do the modules that it loads: with warnings as errors it serves, and ends with 0."""
    command, log = [sys.executable, "-W", "error", "-W", NOT_OURS, "-m", "web"], tmp_path / "web.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment | {"WEB_PORT": "0"}, stdout=output, stderr=output)
    try:
        wait_until(lambda: process.poll() is not None or "serving" in log.read_text(), 30)
        process.terminate()
        code = process.wait(20)
    finally:
        process.kill()

    assert code == 0, log.read_text()


def test_without_its_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line; users-worker alone has the command, too."""
    monkeypatch.setattr(sys, "argv", ["users-web"])
    monkeypatch.setattr(web_command, "hear_signals", lambda _code: None)
    monkeypatch.delitem(sys.modules, "web.server", raising=False)
    monkeypatch.setitem(sys.modules, "aiohttp", None)

    with pytest.raises(SystemExit) as end:
        web_command.main()

    assert end.value.code == "users-web: the service needs aiohttp: pip install 'users-worker[web]'"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT])
async def test_every_signal_that_ends_processes_ends_it_in_order(service: WebProcess, number: signal.Signals) -> None:
    """The end of a terminal and its quit key as SIGTERM and Ctrl-C."""
    service.process.send_signal(number)

    code = await asyncio.to_thread(service.process.wait, 10)

    assert (code, "told to stop" in service.log, "Traceback" in service.log) == (0, True, False)


async def test_the_engine_is_disposed_at_the_end(
    service: WebProcess, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """No connection of ours stays in PostgreSQL, and while requests come there are at most as many as the pool has."""
    count = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'users-web'")
    await asyncio.gather(*(service.get("/user?name=Jane") for _ in range(60)))
    async with sessions() as session:
        serving = await session.scalar(count)
        service.process.send_signal(signal.SIGINT)
        code = await asyncio.to_thread(service.process.wait, 10)
        await session.rollback()

        async def are_gone() -> bool:
            await session.rollback()
            return (await session.scalar(count) or 0) == 0

        await wait_until_async(are_gone, 5)

    assert 1 <= (serving or 0) <= 10
    assert code == 0
    assert "Traceback" not in service.log


async def test_answers_are_not_kept_by_anybody(service: WebProcess) -> None:
    """They are people's data; and nobody needs to know which versions we run."""
    answer = await service.get("/users?email=jane@example.org")

    assert (answer.headers["Cache-Control"], answer.headers["Server"]) == ("no-store", "users-web")
