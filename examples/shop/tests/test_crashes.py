"""Workers that die at every point of every job of the shop: all ends as if none had."""

from datetime import date

from fakes import FakeBank, FakeMailer

from arqonce.testing.crash.crash_points import CrashPoints
from shop.payloads import MakeReport, PlaceOrder
from shop.services import BANK, MAILER


async def test_an_order_is_placed_charged_and_mailed_once(crash_points: CrashPoints) -> None:
    """Follow-ups are part of a proof: this one is of three jobs."""
    proof = await crash_points.prove(
        PlaceOrder(customer="Jane", item="a book", cents=1250), resources={BANK: FakeBank(), MAILER: FakeMailer()}
    )

    assert [order["charge"] for order in proof.state["table orders"]] == ["1250 of Jane"]
    ended = {receipt["job_name"] for receipt in proof.state["table arqonce.receipts"]}
    assert ended == {"place_order", "charge_order", "send_mail"}


async def test_a_report_is_made_once(crash_points: CrashPoints) -> None:
    """It has one row, of a day without orders."""
    proof = await crash_points.prove(MakeReport(day=date(2026, 3, 28)))

    assert [report["orders"] for report in proof.state["table reports"]] == [0]
