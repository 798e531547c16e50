"""Jobs that promise jobs, for real workers and for the prover, which find them by their names."""

from collections.abc import Sequence
from typing import ClassVar

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobSpec, Payload, Registry, Result, enqueue_in, enqueue_many_in
from db.users import insert_user

NAME = f"{__name__}:REGISTRY"


class Stored(Result):
    """What was promised."""

    follow_ups: tuple[str, ...] = ()


class Leaf(Payload[Stored]):
    """Store a user."""

    job_name: ClassVar[str] = "leaf"
    name: str


class Chain(Payload[Stored]):
    """Store a user, and promise a shorter chain."""

    job_name: ClassVar[str] = "chain"
    left: int


class FanOut(Payload[Stored]):
    """Promise so many leaves at once."""

    job_name: ClassVar[str] = "fan_out"
    number: int


class Branch(Payload[Stored]):
    """Store a user and promise a leaf, together with others."""

    job_name: ClassVar[str] = "branch"
    name: str


async def store_leaf(session: AsyncSession, payload: Leaf) -> Stored:
    """Store the user."""
    await insert_user(session, payload.name)
    return Stored()


async def store_chain(session: AsyncSession, payload: Chain) -> Stored:
    """Store a user, and promise the rest."""
    await insert_user(session, f"chain {payload.left}")
    if payload.left == 0:
        return Stored()
    rest = await enqueue_in(session, Chain(left=payload.left - 1))
    return Stored(follow_ups=(rest.job_id,))


async def fan_out(session: AsyncSession, payload: FanOut) -> Stored:
    """Promise the leaves."""
    leaves = await enqueue_many_in(session, [Leaf(name=f"leaf {at}") for at in range(payload.number)])
    return Stored(follow_ups=tuple(leaf.job_id for leaf in leaves))


async def branch(session: AsyncSession, payload: Branch) -> Stored:
    """Store one user, and promise one leaf."""
    return (await branch_batch(session, [payload]))[0]


async def branch_batch(session: AsyncSession, payloads: Sequence[Branch]) -> list[Stored]:
    """Store users, and promise a leaf of each."""
    for payload in payloads:
        await insert_user(session, payload.name)
    await enqueue_many_in(session, [Leaf(name=f"leaf of {payload.name}") for payload in payloads])
    return [Stored() for _ in payloads]


REGISTRY = Registry(
    JobSpec(Leaf, store_leaf),
    JobSpec(Chain, store_chain),
    JobSpec(FanOut, fan_out),
    JobSpec(Branch, branch, batch=branch_batch),
)
