"""What the shop's jobs do, and their registry: ``WORKER_REGISTRY=shop.jobs:REGISTRY``."""

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.spec import JobSpec, Refusal, Registry
from shop.payloads import OrderView, PlaceOrder, UnknownBuyerError
from shop.tables import SCHEMA, Order


async def place_order(session: AsyncSession, payload: PlaceOrder) -> OrderView:
    """Store the order. Delivered twice, it is stored once: its receipt commits with it."""
    order = Order(user_id=payload.user_id, item=payload.item)
    session.add(order)
    await session.flush()
    return OrderView.model_validate(order)


_NO_SUCH_USER = Refusal(error=UnknownBuyerError, message="no user has this id: create the user first")

REGISTRY = Registry(
    JobSpec(PlaceOrder, place_order, refusals={"orders_user_id_fkey": _NO_SUCH_USER}),
    schema=SCHEMA,
)
