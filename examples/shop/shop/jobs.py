"""What the shop's jobs do, and their registry."""

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobSpec, Refusal, Registry
from shop.payloads import AlreadyOrderedError, OrderView, PlaceOrder
from shop.tables import SCHEMA, Order


async def place_order(session: AsyncSession, payload: PlaceOrder) -> OrderView:
    """Store the order. Delivered twice, it is stored once: its receipt commits with it."""
    order = Order(customer=payload.customer, item=payload.item)
    session.add(order)
    await session.flush()
    return OrderView.model_validate(order)


_ALREADY_ORDERED = Refusal(error=AlreadyOrderedError, message="the customer has ordered this before")

REGISTRY = Registry(
    JobSpec(PlaceOrder, place_order, refusals={"orders_customer_item_key": _ALREADY_ORDERED}),
    schema=SCHEMA,
)
