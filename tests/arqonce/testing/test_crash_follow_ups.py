"""Jobs that promise jobs leave each of them once, wherever a worker is killed."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobSpec, Registry, enqueue_in
from arqonce.testing.crash.crash_points import CrashPoints
from arqonce.testing.crash.end_state import State
from tests.arqonce.follow_ups import REGISTRY, Branch, Chain, Leaf, Stored, branch, branch_batch, store_leaf


def _ended(state: State) -> dict[str, int]:
    """Count receipts by the job's name."""
    return dict(Counter(receipt["job_name"] for receipt in state["table arqonce.receipts"]))


def _stored(state: State) -> list[str]:
    return sorted(user["name"] for user in state["table users"])


async def test_a_crash_anywhere_in_a_chain_leaves_each_follow_up_once(crash_points: CrashPoints) -> None:
    """Of the job, and of its follow-ups: also between the commit and the dispatch of what it promises."""
    proof = await crash_points.prove(Chain(left=1), registry=REGISTRY)

    assert _ended(proof.state) == {"chain": 2}
    assert _stored(proof.state) == ["chain 0", "chain 1"]
    assert proof.state["table arqonce.outbox"] == []
    assert len([place for place in proof.state if place.startswith("redis arq:result:crash-points")]) == 2


async def branch_and_remind(session: AsyncSession, payloads: Sequence[Branch]) -> list[Stored]:
    """Promise what is due now, what is due later, and what is for workers elsewhere."""
    await enqueue_in(session, Leaf(name="reminder"), delay=timedelta(hours=1))
    await enqueue_in(session, Leaf(name="elsewhere"), queue="elsewhere")
    return await branch_batch(session, payloads)


REMINDING = Registry(JobSpec(Branch, branch, batch=branch_and_remind), JobSpec(Leaf, store_leaf))


async def test_a_crash_anywhere_in_a_batch_leaves_the_follow_ups_of_all_its_jobs_once(
    crash_points: CrashPoints,
) -> None:
    """Their ids are random, and differ from run to run. What is not to run now stays promised."""
    proof = await crash_points.prove(Branch(name="a"), Branch(name="b"), registry=REMINDING)

    assert _ended(proof.state) == {"branch": 2, "leaf": 2}
    assert _stored(proof.state) == ["a", "b", "leaf of a", "leaf of b"]
    assert [(row["job_id"], row["queue"]) for row in proof.state["table arqonce.outbox"]] == [
        ("outbox#1", "arq:queue"),
        ("outbox#2", "elsewhere"),
    ]
