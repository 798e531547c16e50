"""Every job ends the same wherever its worker is killed; and the prover finds what would not."""

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.payloads import AnyPayload, Payload
from arqonce.spec import JobSpec, Registry
from arqonce.testing.crash.crash_points import CrashPointError, CrashPoints
from arqonce.testing.crash.forks import ForkError
from arqonce.testing.crash.points import Moment
from chaos.turns import REGISTRY as TURNS
from chaos.turns import TakeTurn
from db.users import insert_user
from jobs import CreateUser, CreateUsers, FindUser, GetOrCreateUser, NewUser, UserView
from jobs.users import create_user
from tests.arqonce.testing import crash_handlers


class NamelessUser(Payload[UserView]):
    """A producer of a version that allowed it."""

    job_name: ClassVar[str] = "create_user"
    name: str


JANE = CreateUser(name="Jane", email="jane@example.org")
NOBODY = CreateUser(name="Nobody")
Given = Callable[[AsyncSession], Awaitable[object]]


async def _jane_is_stored(session: AsyncSession) -> None:
    await insert_user(session, "Jane", "jane@example.org")


def _registry(handler: Any) -> Registry:  # noqa: ANN401 - any handler of CreateUser
    return Registry(JobSpec(CreateUser, handler))


WRITING = {
    "get_or_create_user": GetOrCreateUser(name="Jane", email="jane@example.org"),
    "create_users": CreateUsers(users=[NewUser(name="Jane", email="jane@example.org"), NewUser(name="Nobody")]),
}


@pytest.mark.parametrize("payload", WRITING.values(), ids=WRITING)
async def test_a_crash_anywhere_leaves_one_effect_and_one_receipt(
    payload: AnyPayload, crash_points: CrashPoints
) -> None:
    """At each await and on both sides of the commit: the job is delivered again, and ends as if nothing had been."""
    proof = await crash_points.prove(payload)

    moments = {moment for moment in Moment if any(moment.value in point for point in proof.points)}
    assert moments == set(Moment)
    assert len(proof.state["table arqonce.receipts"]) == 1
    assert len(proof.points) > 15
    assert _has_finish(proof.points)


def _has_finish(points: Sequence[str]) -> bool:
    """Say whether the worker has died before and behind the answer to the call that records the job's end."""
    finish = [point for point in points if "arqonce/connection/direct.py" in point]
    return all(any(moment.value in point for point in finish) for moment in (Moment.SENT, Moment.ANSWERED))


async def test_a_crash_anywhere_in_a_promised_job_leaves_one_effect(crash_points: CrashPoints) -> None:
    """Without an e-mail only the receipt stands against a second one; the row in the outbox goes with it."""
    proof = await crash_points.prove(NOBODY, is_promised=True)

    assert len(proof.state["table users"]) == len(proof.state["table arqonce.receipts"]) == 1


async def test_a_crash_anywhere_in_a_look_up_leaves_nothing(crash_points: CrashPoints) -> None:
    """It is run again, and answers."""
    proof = await crash_points.prove(FindUser(name="Jane"), given=_jane_is_stored)

    assert [user["name"] for user in proof.state["redis arq:result:crash-points"]["r"]["users"]] == ["Jane"]


async def test_a_crash_anywhere_in_a_refused_job_leaves_the_same_refusal(crash_points: CrashPoints) -> None:
    """Never an effect, and never another answer."""
    proof = await crash_points.prove(JANE, given=_jane_is_stored)

    assert proof.state["redis arq:result:crash-points"]["r"]["type"] == "email_taken"
    assert len(proof.state["table users"]) == 1
    assert len(proof.state["table arqonce.receipts"]) == 1


async def test_a_crash_anywhere_in_an_invalid_job_leaves_one_dead_letter(crash_points: CrashPoints) -> None:
    """The letter is the same as without a crash; also of a job whose row in the outbox went with the first letter."""
    proof = await crash_points.prove(NamelessUser(name=""), is_promised=True, is_dead=True)

    assert [letter["reason"] for letter in proof.state["table arqonce.dead_jobs"]] == ["invalid_payload"]


TOGETHER = {
    "create_user": [NOBODY, JANE, CreateUser(name="Second Jane", email="jane@example.org")],
    "get_or_create_user": [GetOrCreateUser(name=name, email="jane@example.org") for name in ("Jane", "Joe", "Jim")],
}


@pytest.mark.parametrize("payloads", TOGETHER.values(), ids=TOGETHER)
async def test_a_crash_anywhere_in_a_batch_leaves_one_effect_of_each_job(
    payloads: list[AnyPayload], crash_points: CrashPoints
) -> None:
    """Jobs that ran together run together again, or answer from their receipts, each as it would have."""
    proof = await crash_points.prove(*payloads)

    batched = [point for point in proof.points if "batch.py" in point or "engine/run.py" in point]
    assert (len(proof.state["table arqonce.receipts"]), bool(batched), _has_finish(proof.points)) == (3, True, True)
    assert {moment for moment in Moment if any(moment.value in point for point in proof.points)} == set(Moment)


SHARED = {
    "both succeed": (TakeTurn(name="Joe"), "execution/sharing.py", 3),
    "one fails, so that it runs by itself": (
        TakeTurn(name="Jane", email="jane@example.org"),
        f"in attempt, {Moment.BEGINS.value} (time 2)",
        2,
    ),
}


@pytest.mark.parametrize(("other", "passes", "stored"), SHARED.values(), ids=SHARED)
async def test_a_crash_anywhere_in_a_shared_transaction_leaves_one_effect_of_each_job(
    other: AnyPayload, passes: str, stored: int, crash_points: CrashPoints
) -> None:
    """Whether it commits, or rolls back for one of its jobs: then there is more than one run."""
    proof = await crash_points.prove(TakeTurn(name="Jim"), other, registry=TURNS, given=_jane_is_stored)

    assert any(passes in point for point in proof.points)
    assert _has_finish(proof.points)
    assert (len(proof.state["table arqonce.receipts"]), len(proof.state["table users"])) == (2, stored)


@pytest.fixture
def few_at_once(crash_points: CrashPoints, monkeypatch: pytest.MonkeyPatch) -> CrashPoints:
    """Yield the prover, to find what it finds soon: points that are tried beside the one that fails prove nothing."""
    monkeypatch.setattr(crash_points, "_at_once", 3)
    return crash_points


async def test_the_prover_finds_a_batch_whose_receipts_come_in_a_second_transaction(few_at_once: CrashPoints) -> None:
    """As it does for one job."""
    with pytest.raises(CrashPointError, match="table users"):
        await few_at_once.prove(NOBODY, NOBODY, NOBODY, prepare=crash_handlers.split_the_transaction)


FAULTS = {
    "receipt in a second transaction": (create_user, crash_handlers.split_the_transaction, "table users"),
    "handler commits": (crash_handlers.commit_by_itself, None, "table users"),
    "effect outside": (crash_handlers.write_a_file, None, "file mails.txt"),
}


@pytest.mark.parametrize(("handler", "prepare", "place"), FAULTS.values(), ids=FAULTS)
async def test_the_prover_finds(
    handler: Any,  # noqa: ANN401 - any handler of CreateUser
    prepare: Callable[[], None] | None,
    place: str,
    few_at_once: CrashPoints,
) -> None:
    """A job that a crash can make take effect twice: it names the point, what was done before, and the difference."""
    with pytest.raises(CrashPointError) as caught:
        await few_at_once.prove(NOBODY, registry=_registry(handler), prepare=prepare)

    _, told, *_ = str(caught.value).split("\n\n", 2)
    assert re.match(r"(\S+\.py:\d+ in \w+|a transaction of the job).*, (before|after|right before) .*\n", told)
    assert place in told
    assert "done before, the latest last:" in told


async def test_a_handler_that_no_other_process_finds_is_refused(crash_points: CrashPoints) -> None:
    """The error says where to put it."""

    async def local(session: AsyncSession, payload: CreateUser) -> Any:  # noqa: ANN401 - never called
        return await create_user(session, payload)

    with pytest.raises(ForkError, match="top of a module"):
        await crash_points.prove(NOBODY, registry=_registry(local))


async def test_a_worker_that_does_not_start_is_told_with_its_log(crash_points: CrashPoints) -> None:
    """Nobody waits for it."""
    with pytest.raises(ForkError, match=r"ended by itself(.|\n)*the preparation is broken"):
        await crash_points.prove(NOBODY, prepare=crash_handlers.fail)


@pytest.mark.parametrize(
    ("payload", "is_dead", "told"),
    [
        (NamelessUser(name=""), False, "create_user: invalid_payload: (.*)"),
        (FindUser(name="Jane"), True, "ends without one"),
    ],
    ids=["dead", "alive"],
)
async def test_another_end_than_the_one_that_is_meant_is_no_proof(
    payload: AnyPayload, *, is_dead: bool, told: str, crash_points: CrashPoints
) -> None:
    """A job that is refused for the same reason wherever its worker dies proves nothing, unless that is the claim."""
    with pytest.raises(CrashPointError, match=told):
        await crash_points.prove(payload, is_dead=is_dead)
