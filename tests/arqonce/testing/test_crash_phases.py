"""A job that calls another service before it stores the outcome ends the same wherever its worker is killed."""

from arqonce.testing.crash.crash_points import CrashPoints
from tests.faults.slow import REGISTRY, Charge, open_service


async def test_a_crash_anywhere_repeats_the_call_with_its_key_and_stores_once(crash_points: CrashPoints) -> None:
    """The bank is called at least once in each run, always with the one key: it charges once."""
    async with open_service() as bank:
        proof = await crash_points.prove(Charge(name="Jane", port=bank.port), registry=REGISTRY)

    assert len(proof.state["table users"]) == len(proof.state["table arqonce.receipts"]) == 1
    assert list(bank.charges.values()) == ["Jane"]
    assert bank.calls.total() > 1 + len(proof.points)  # some die behind the call, and call again
    assert any("tests/faults/slow.py" in point and "before the answer" in point for point in proof.points)
