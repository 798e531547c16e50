"""What ``users-worker dead`` prints and how it ends, for dead letters that are there and that are not."""

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from typer.testing import CliRunner

from arqonce.commands import dead
from arqonce.control import dead_letters as control
from arqonce.ledger.dead_jobs import (
    DeadFilter,
    DeadLetter,
    dead_jobs,
    in_steps,
    insert_new_dead_letters,
    oldest_dead_jobs,
)
from tests import warm

pytestmark = pytest.mark.usefixtures("starts_processes")

Sessions = async_sessionmaker[AsyncSession]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

_IDS = ["caseC~confirmation-of-an-order-that-has-a-long-name-0123456789", "user:key:1", "[b]bracketed"]
"""Longer than a column of a terminal of 80; and those that rich would take for an emoji and for markup."""


async def _bury(sessions: Sessions, *job_ids: str, queue: str = "arq:queue") -> None:
    letters = [
        DeadLetter(
            job_id=job_id, job_name="create_user", message=b"{}", reason="invalid_payload", sqlstate=None,
            explanation="the fields of create_user are: name, email", error="", attempts=1, queue=queue,
        )
        for job_id in job_ids
    ]  # fmt: skip
    async with sessions.begin() as session:
        assert await insert_new_dead_letters(session, {letter.job_id: letter for letter in letters}) == set(job_ids)


async def _dead(sessions: Sessions) -> set[str]:
    async with sessions() as session:
        return {letter.job_id for letter in await dead_jobs(session, DeadFilter(), limit=100)}


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "worker", "dead", *arguments]


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Return a function that runs ``users-worker dead`` with 80 columns, piped."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return warm.run(_command(*arguments), environment | {"COLUMNS": "80"})

    return run


async def test_a_piped_list_has_each_dead_letter_on_one_line(sessions: Sessions, run: Run) -> None:
    """Whole, so that a script finds the id and what goes with it."""
    await _bury(sessions, *_IDS)

    lines = run("list").stdout.splitlines()

    for job_id in _IDS:
        (line,) = [line for line in lines if job_id in line]
        assert "the fields of create_user are: name, email" in line


async def test_a_terminal_folds_no_id_and_cuts_none(sessions: Sessions, environment: dict[str, str]) -> None:
    """An id that ends in an ellipsis, or on another line, can be given to no other command."""
    await _bury(sessions, *_IDS)

    shown = _shown_on_a_terminal(environment | {"COLUMNS": "80", "TERM": "dumb"})

    lines = [line.rstrip() for line in shown.splitlines()]
    assert "…" not in shown
    assert [job_id for job_id in _IDS if f"job id       {job_id}" not in lines] == []


def _shown_on_a_terminal(environment: dict[str, str]) -> str:
    ours, theirs = pty.openpty()
    with subprocess.Popen(_command("list"), env=environment, stdout=theirs) as process, os.fdopen(ours, "rb", 0) as end:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # Linux says EIO once the other end is closed
            while part := end.read(4096):
                shown += part
    assert process.returncode == 0
    return shown.decode()


async def test_a_list_in_json_explains(sessions: Sessions, run: Run) -> None:
    """A script is told as much as a person."""
    await _bury(sessions, "j1")

    (letter,) = json.loads(run("list", "--json").stdout)

    assert letter.pop("died_at")
    assert letter == {
        "job_id": "j1",
        "job_name": "create_user",
        "queue": "arq:queue",
        "reason": "invalid_payload",
        "attempts": 1,
        "explanation": "the fields of create_user are: name, email",
    }


def test_the_help_promises_only_that_no_values_are_shown(run: Run) -> None:
    """A producer may have put anything into the name of a field or of a job."""
    words = " ".join(run("list", "--help").stdout.split())

    assert "Shows no values of fields" in words
    assert "person's data" not in words


async def test_named_ids_that_are_not_dead_are_told(sessions: Sessions, redis: Redis, run: Run) -> None:
    """After the others were handled, each once; a script sees it in the exit code."""
    await _bury(sessions, "a", "b", "c")

    retried = run("retry", "a", "nope", "b", "nope")
    discarded = run("discard", "none", "a", "nope", "c", "a")
    in_vain = [run(command, "nope") for command in ("retry", "discard")]

    told = "users-worker: no dead letter: nope\n"
    assert (retried.returncode, retried.stdout, retried.stderr) == (1, "put back 2\n", told)
    assert sorted(await redis.zrange("arq:queue", 0, -1)) == [b"a", b"b"]
    assert (discarded.returncode, discarded.stdout) == (1, "discarded 2\n")
    assert discarded.stderr == f"users-worker: no dead letter: none\n{told}"
    assert [(done.returncode, done.stdout, done.stderr) for done in in_vain] == [(1, "", told)] * 2
    assert await _dead(sessions) == {"b"}


async def test_ids_that_are_all_dead_are_handled_in_silence(sessions: Sessions, run: Run) -> None:
    """And all of them without ids; with nothing dead there is nothing to do, which is no failure."""
    await _bury(sessions, "a", "b", "c")

    ended = [run(*arguments) for arguments in (["retry", "a", "b"], ["discard", "a"], ["discard", "--all", "--yes"])]
    empty = [run(*command, "--all") for command in (["retry"], ["discard"], ["discard", "--yes"])]

    assert [(done.returncode, done.stdout, done.stderr) for done in ended] == [
        (0, "put back 2\n", ""),
        (0, "discarded 1\n", ""),
        (0, "discarded 2\n", ""),
    ]
    nothing = "there are no such dead jobs: nothing to do\n"
    assert [(done.returncode, done.stdout, done.stderr) for done in empty] == [(0, nothing, "")] * 3


async def test_a_script_that_discards_all_has_to_say_that_it_means_it(sessions: Sessions, run: Run) -> None:
    """On a terminal it is asked; elsewhere nobody could answer, and nothing is removed."""
    await _bury(sessions, "a", "b")

    done = run("discard", "--all")

    assert done.returncode == 2
    assert "would remove 2 dead jobs for good: give --yes" in done.stderr
    assert await _dead(sessions) == {"a", "b"}


async def test_a_pipe_gets_columns_separated_by_tabs(sessions: Sessions, run: Run) -> None:
    """With the queue, and one line for each."""
    await _bury(sessions, "a", "b")

    lines = [line.split("\t") for line in run("list").stdout.splitlines()]

    assert lines[0] == ["job id", "job", "queue", "reason", "attempts", "died at", "explanation"]
    assert sorted(line[0] for line in lines[1:]) == ["a", "b"]
    assert {len(line) for line in lines} == {7}


async def test_a_retry_puts_each_job_back_into_its_own_queue(sessions: Sessions, redis: Redis, run: Run) -> None:
    """Whatever queue the operator's settings name: another queue may have workers with other jobs."""
    await _bury(sessions, "here")
    await _bury(sessions, "there", queue="other:queue")

    assert run("retry", "--all").returncode == 0

    queues = [await redis.zrange(queue, 0, -1) for queue in ("arq:queue", "other:queue")]
    assert queues == [[b"here"], [b"there"]]


async def test_a_bulk_retry_takes_the_oldest_first_and_says_what_remains(
    sessions: Sessions, redis: Redis, run: Run
) -> None:
    """What dies again is the youngest then: the next call goes on where this one has ended."""
    ids = [f"job-{number:04}" for number in range(1200)]
    await _bury(sessions, *ids)
    async with sessions.begin() as session:  # in this order, and each a little later
        await session.execute(
            text(
                "UPDATE arqonce.dead_jobs SET died_at = now() - interval '1 h' + right(job_id, 4)::int * interval '1 s'"
            )
        )

    first = run("retry", "--all", "--limit", "700")
    queued = sorted(job_id.decode() for job_id in await redis.zrange("arq:queue", 0, -1))
    everything = run("retry", "--all")

    assert first.stdout == "put back 700; 500 remain: run it again\n"
    assert queued == ids[:700]
    assert everything.stdout == "put back 1200\n"
    assert await redis.zcard("arq:queue") == 1200


async def test_what_remains_is_told_whatever_has_taken_effect_meanwhile(
    sessions: Sessions, redis: Redis, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Letters of jobs that a quick worker has done are gone: they were subtracted twice, and nothing seemed left."""
    await _bury(sessions, "a", "b", "c", "d")

    async def retry_steps(sessions: Sessions, *others: Any, **options: Any) -> AsyncIterator[Sequence[str]]:  # noqa: ANN401 - as given
        async for ids in control.retry_steps(sessions, *others, **options):
            async with sessions.begin() as session:
                await session.execute(text("DELETE FROM arqonce.dead_jobs WHERE job_id = ANY(:ids)"), {"ids": ids})
            yield ids

    monkeypatch.setattr(dead, "retry_steps", retry_steps)
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.setenv(name, environment[name])
    done = await asyncio.to_thread(CliRunner().invoke, dead.build_dead_app(), ["retry", "--all", "--limit", "2"])

    assert done.output == "put back 2; 2 remain: run it again\n"
    assert await redis.zcard("arq:queue") == 2


async def test_large_messages_are_put_back_in_steps_of_bounded_bytes(sessions: Sessions) -> None:
    """So that neither this process nor Redis gets more than some MiB at once."""
    await _bury(sessions, *[f"{number}" for number in range(12)])
    async with sessions.begin() as session:
        await session.execute(text("UPDATE arqonce.dead_jobs SET message = convert_to(repeat('x', 1000000), 'utf8')"))
        places = await oldest_dead_jobs(session, DeadFilter(), after=None)

    assert [len(ids) for ids in in_steps(places)] == [4, 4, 4]


async def test_letters_with_one_time_are_sorted_once_for_many_steps(sessions: Sessions) -> None:
    """PostgreSQL sorts all that have the time, a million perhaps: that takes a second, and each step takes 10 ms."""
    await _bury(sessions, *[f"{number:04}" for number in range(1100)])

    async with sessions() as session:
        places = await oldest_dead_jobs(session, DeadFilter(), after=None)
        rest = await oldest_dead_jobs(session, DeadFilter(), after=places[499])

    assert [len(ids) for ids in in_steps(places)] == [500, 500, 100]
    assert rest == places[500:]


async def test_all_are_discarded_in_steps(sessions: Sessions, run: Run) -> None:
    """Each in a transaction of its own, so that locks are short and an interruption loses little."""
    await _bury(sessions, *[f"{number}" for number in range(1100)])

    assert run("discard", "--all", "--yes").stdout == "discarded 1100\n"
    assert await _dead(sessions) == set()
