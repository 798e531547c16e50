"""What the shop's jobs do, and their registry."""

from datetime import timedelta

from sqlalchemy import Date, cast, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobContext, JobSpec, Limit, Phases, Refusal, Registry, Schedule, enqueue_in
from shop.payloads import (
    AlreadyOrderedError,
    Charged,
    ChargeOrder,
    Mailed,
    MakeReport,
    OrderView,
    PlaceOrder,
    Report,
    SendMail,
)
from shop.services import BANK, MAILER
from shop.tables import SCHEMA, DailyReport, Order

ZONE = "Europe/Berlin"
"""Where the shop's days begin and end."""


async def place_order(session: AsyncSession, payload: PlaceOrder) -> OrderView:
    """Store the order, and have it charged: both, or none, and once, however often the job is delivered."""
    order = Order(customer=payload.customer, item=payload.item, cents=payload.cents)
    session.add(order)
    await session.flush()
    charging = await enqueue_in(session, ChargeOrder(order=order.id, customer=order.customer, cents=order.cents))
    return OrderView(
        id=order.id,
        customer=order.customer,
        item=order.item,
        created_at=order.created_at,
        charging=charging.job_id,
    )


async def charge(payload: ChargeOrder, job: JobContext) -> str:
    """Charge the customer: at least once, always with the same key."""
    return await job[BANK].charge(payload.customer, payload.cents, key=job.idempotency_key)


async def store_charge(session: AsyncSession, payload: ChargeOrder, charge: str) -> Charged:
    """Note the charge, and have the customer told: exactly once. A mail is never urgent."""
    order = await session.get_one(Order, payload.order)
    order.charge = charge
    told = SendMail(customer=order.customer, text=f"You have paid {order.cents / 100:.2f} EUR for {order.item}.")
    mail = await enqueue_in(session, told, queue="arq:queue")
    return Charged(charge=charge, mail=mail.job_id)


async def send(payload: SendMail, job: JobContext) -> str:
    """Send the mail: at least once, always with the same key."""
    return await job[MAILER].send(payload.customer, payload.text, key=job.idempotency_key)


async def store_mail(_session: AsyncSession, _payload: SendMail, message: str) -> Mailed:
    """Write nothing: the receipt has the id of the message."""
    return Mailed(message=message)


async def make_report(session: AsyncSession, payload: MakeReport) -> Report:
    """Sum up the day. A second report of a day replaces the first."""
    day = cast(func.timezone(ZONE, Order.created_at), Date)
    sums = select(func.count(), func.coalesce(func.sum(Order.cents), 0)).where(day == payload.day)
    orders, cents = (await session.execute(sums)).one()
    report = Report(day=payload.day, orders=orders, cents=cents)
    store = insert(DailyReport).values(report.model_dump())
    await session.execute(store.on_conflict_do_update(index_elements=["day"], set_=report.model_dump()))
    return report


_ALREADY_ORDERED = Refusal(error=AlreadyOrderedError, message="the customer has ordered this before")

REGISTRY = Registry(
    JobSpec(PlaceOrder, place_order, refusals={"orders_customer_item_key": _ALREADY_ORDERED}),
    JobSpec(
        ChargeOrder,
        Phases(work=charge, store=store_charge, deadline=timedelta(minutes=1)),
        limits=[Limit(concurrency=1, by="customer"), Limit(rate=100, per=timedelta(minutes=1))],
    ),
    JobSpec(SendMail, Phases(work=send, store=store_mail, deadline=timedelta(minutes=1))),
    JobSpec(MakeReport, make_report),
    schedules=[
        Schedule(
            "nightly-report",
            lambda slot: MakeReport(day=slot.date() - timedelta(days=1)),
            cron="0 2 * * *",
            zone=ZONE,
        )
    ],
    resources=[BANK, MAILER],
    schema=SCHEMA,
)
