"""Operators' acts are on record: who, what, on what, how many, why."""

import json
import sys

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.control.dead_letters import DISCARD, DeadAct, recorded
from arqonce.ledger.audit import list_acts
from arqonce.ledger.dead_jobs import DeadFilter, DeadLetter, insert_new_dead_letters
from tests import warm
from tests.rights import Rights

Sessions = async_sessionmaker[AsyncSession]


async def _bury(sessions: Sessions, *job_ids: str, reason: str = "invalid_payload") -> None:
    letters = [
        DeadLetter(
            job_id=job_id, job_name="create_user", message=b"{}", reason=reason, sqlstate=None, explanation="",
            error="", attempts=1, queue="nobody",
        )
        for job_id in job_ids
    ]  # fmt: skip
    async with sessions.begin() as session:
        await insert_new_dead_letters(session, {letter.job_id: letter for letter in letters})


@pytest.mark.usefixtures("starts_processes", "redis")
@pytest.mark.parametrize("rights", ["least rights"], indirect=True)
async def test_what_was_done_to_dead_letters_is_on_record(
    sessions: Sessions, environment: dict[str, str], rights: Rights
) -> None:
    """One row for each act that hit something; a preview is none. With no more rights than an operator's."""
    own = environment | {
        "DATABASE_URL": rights.operator_database, "REDIS_URL": rights.operator_redis, "WORKER_QUEUE": "arq:queue"
    }  # fmt: skip
    await _bury(sessions, "one", "two", "three")
    await _bury(sessions, "four", reason="attempts_exhausted")

    def run(*command: str) -> str:
        done = warm.run([sys.executable, "-m", "worker", *command], own)
        assert done.returncode == 0, done.stderr
        return done.stdout

    preview = run("dead", "discard", "--all", "--preview")
    run("dead", "discard", "one", "--why", "a test", "--by", "jane")
    run("dead", "discard", "--all", "--reason", "invalid_payload", "--yes", "--by", "jane")
    run("dead", "discard", "--all", "--reason", "invalid_payload", "--yes", "--by", "jane")

    acts = json.loads(run("audit", "list", "--json", "--since", "1h"))

    lines = [" ".join(line.split()) for line in preview.splitlines()]
    assert lines == ["4 dead jobs", "3 create_user invalid_payload", "1 create_user attempts_exhausted"]
    assert [tuple(act.values())[1:] for act in acts] == [
        ("jane", "dead discard", "all reason=invalid_payload", 2, None),
        ("jane", "dead discard", "one", 1, "a test"),
    ]


async def test_an_act_that_is_broken_off_says_how_far_it_came(sessions: Sessions) -> None:
    """What was meant is on record before it begins, so that a killed command leaves it, too."""
    act = DeadAct(DISCARD, DeadFilter(), "jane", "a test")

    async def break_off() -> None:
        async with recorded(act, sessions, 3, lambda: 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await break_off()

    async with sessions() as session:
        acts = [(found.act, found.number, found.why) for found in await list_acts(session, since=None, limit=10)]
    assert acts == [("dead discard, broken off", 2, "a test"), ("dead discard", 3, "a test")]
