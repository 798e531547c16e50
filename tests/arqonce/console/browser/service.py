"""The jobs of the fleet that the browser looks at: some end, some fail, some run until the fleet ends."""

import asyncio
from datetime import timedelta
from typing import ClassVar

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.failures import JobFailedError
from arqonce.payloads import Payload, Result
from arqonce.schedules.schedule import Schedule
from arqonce.spec import JobSpec, Registry

NAME = f"{__name__}:REGISTRY"
"""What WORKER_REGISTRY is for the fleet's worker."""

_FOR_EVER = timedelta(hours=1)


class Number(Result):
    """A number."""

    number: int


class SendReceipt(Payload[Number]):
    """Send a receipt to a customer."""

    job_name: ClassVar[str] = "send_receipt"
    number: int


class ChargeCard(Payload[Number]):
    """Charge a card, whose bank does not answer."""

    job_name: ClassVar[str] = "charge_card"
    number: int


class SyncStock(Payload[Number]):
    """Compare the stock of a shop with a system that does not know this shop."""

    job_name: ClassVar[str] = "sync_stock"
    shop: int


class RenderReport(Payload[Number]):
    """Render a report, which takes as long as the fleet is there."""

    job_name: ClassVar[str] = "render_report"
    year: int


class UnknownShopError(JobFailedError):
    """The system does not know the shop."""

    code = "unknown_shop"


async def _send_receipt(_session: AsyncSession, payload: SendReceipt) -> Number:
    return Number(number=payload.number)


async def _charge_card(_session: AsyncSession, _payload: ChargeCard) -> Number:
    raise ConnectionResetError


async def _sync_stock(_session: AsyncSession, payload: SyncStock) -> Number:
    raise UnknownShopError(f"the shop {payload.shop} is unknown")


async def _render_report(_session: AsyncSession, _payload: RenderReport) -> Number:
    await asyncio.sleep(_FOR_EVER.total_seconds())
    raise AssertionError


REGISTRY = Registry(
    JobSpec(SendReceipt, _send_receipt),
    JobSpec(ChargeCard, _charge_card, max_attempts=2),
    JobSpec(SyncStock, _sync_stock),
    JobSpec(RenderReport, _render_report, deadline=_FOR_EVER),
    schedules=[
        Schedule("monthly-report", RenderReport(year=2026), cron="0 6 1 * *", zone="Europe/Berlin"),
        Schedule("stock", SyncStock(shop=7), every=timedelta(hours=6)),
    ],
)
