"""Jobs that are slow in one of their phases, with short deadlines: ``WORKER_REGISTRY=chaos.jobs:REGISTRY``.

So a worker that is stopped for longer than deadline, margin and lease is stopped in each of these phases.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar, Literal, get_args

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.payloads import Payload
from arqonce.spec import JobSpec, Registry
from db.users import insert_new_users, insert_user
from jobs.fields import UserName
from jobs.payloads import UserView

DEADLINE = timedelta(seconds=2)
"""Longest time of one attempt."""

_PAUSE_S = 0.8
"""How long a job stays in its slow phase, in seconds."""

_MAX_ATTEMPTS = 50
"""Many, because faults that are no outages end many of these short attempts."""

Phase = Literal["before the first statement", "between statements", "before the commit", "in the commit"]

PHASES: tuple[Phase, ...] = get_args(Phase)
"""Where a job can be slow."""

SLOW_COMMITS = f"""
    CREATE TABLE slow_commits (name text NOT NULL);
    CREATE FUNCTION be_slow() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_sleep({_PAUSE_S}); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER be_slow AFTER INSERT ON slow_commits
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION be_slow();
"""
"""A constraint trigger that is deferred until the commit and makes it slow."""


class Slow(Payload[UserView]):
    """Store a user, slowly in one phase."""

    job_name: ClassVar[str] = "slow"
    name: UserName
    phase: Phase


class SlowTogether(Payload[UserView]):
    """Store a user slowly, in one transaction with others."""

    job_name: ClassVar[str] = "slow_together"
    name: UserName


async def slow(session: AsyncSession, payload: Slow) -> UserView:
    """Store the user."""
    if payload.phase == "before the first statement":
        await asyncio.sleep(_PAUSE_S)
    if payload.phase == "between statements":
        await session.execute(text("SELECT 1"))
        await asyncio.sleep(_PAUSE_S)
    user = await insert_user(session, payload.name)
    if payload.phase == "before the commit":
        await asyncio.sleep(_PAUSE_S)
    if payload.phase == "in the commit":
        await session.execute(text("INSERT INTO slow_commits VALUES ('')"))
    return UserView(id=user.id, name=user.name, email=user.email, created_at=user.created_at)


async def slow_together(session: AsyncSession, payload: SlowTogether) -> UserView:
    """Store the user in a batch of one."""
    (user,) = await slow_batch(session, [payload])
    return user


async def slow_batch(session: AsyncSession, payloads: Sequence[SlowTogether]) -> list[UserView]:
    """Store the users, with a pause before and after."""
    await asyncio.sleep(_PAUSE_S / 2)
    stored = await insert_new_users(session, [(payload.name, None) for payload in payloads])
    await asyncio.sleep(_PAUSE_S / 2)
    users = [stored[at] for at in range(len(payloads))]
    return [UserView(id=user.id, name=user.name, email=user.email, created_at=user.created_at) for user in users]


REGISTRY = Registry(
    JobSpec(Slow, slow, deadline=DEADLINE, max_attempts=_MAX_ATTEMPTS),
    JobSpec(SlowTogether, slow_together, batch=slow_batch, deadline=DEADLINE, max_attempts=_MAX_ATTEMPTS),
)
"""The slow jobs."""
