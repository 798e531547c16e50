"""A job that calls another service before it stores the outcome ends the same wherever its worker is killed."""

import asyncio
import pickle
from datetime import timedelta
from typing import cast

import pytest

from arqonce import Registry, Resource, Schedule
from arqonce.resources import open_resources
from arqonce.settings.worker import Settings
from arqonce.testing.crash.crash_points import CrashPoints
from arqonce.testing.crash.forks import ForkError, Load
from arqonce.testing.crash.orders import Work
from tests.faults.slow import BANK, REGISTRY, Bank, Charge, open_service


async def test_a_crash_anywhere_repeats_the_call_with_its_key_and_stores_once(crash_points: CrashPoints) -> None:
    """The bank is called at least once in each run, always with the one key: it charges once."""
    async with open_service() as bank:
        proof = await crash_points.prove(Charge(name="Jane", port=bank.port), registry=REGISTRY)

    assert len(proof.state["table users"]) == len(proof.state["table arqonce.receipts"]) == 1
    assert list(bank.charges.values()) == ["Jane"]
    assert bank.calls.total() > 1 + len(proof.points)  # some die behind the call, and call again
    assert any("tests/faults/slow.py" in point and "before the answer" in point for point in proof.points)


class _FreeBank(Bank):
    """Charges nothing, and calls nobody."""

    async def charge(self, port: int, key: str, name: str) -> str:  # noqa: ARG002 - as the bank's own
        return f"nothing for {name}"


async def test_workers_of_a_proof_get_fakes_and_no_schedules() -> None:
    """As ``run_job`` gives them; no process must find the functions that make the payloads of slots."""
    often = Schedule("often", lambda slot: Charge(name=str(slot), port=0), every=timedelta(seconds=1))
    registry = Registry(*REGISTRY, schedules=[often], resources=REGISTRY.resources)

    work: Work = pickle.loads(Load(registry, None, {BANK: _FreeBank()}).work)  # noqa: S301 - our own

    async with open_resources(work.registry.resources, cast("Settings", None)) as opened:
        assert await opened[BANK].charge(0, "k", "Jane") == "nothing for Jane"
    assert (work.registry.schedules, list(registry.schedules)) == ({}, ["often"])
    with pytest.raises(ForkError, match="the registry has no resource lift: it cannot be replaced"):
        Load(registry, None, {Resource("lift", asyncio.Lock): None})
