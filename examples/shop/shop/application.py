"""What the library is told: whose jobs these are, and which command there is besides its own."""

import asyncio

import typer
from sqlalchemy import select

from arqonce import Application
from arqonce.application import Settings, open_sessions
from shop.jobs import REGISTRY
from shop.tables import Order


def orders() -> None:
    """Print all orders, the oldest first."""
    asyncio.run(_print_orders())


async def _print_orders() -> None:
    async with open_sessions(Settings.load()) as sessions, sessions() as session:
        for order in await session.scalars(select(Order).order_by(Order.id)):
            typer.echo(f"{order.id}: {order.item} for {order.customer}, {'paid' if order.charge else 'not paid'}")


APPLICATION = Application(name="shop", module="shop", registry=REGISTRY, commands={"orders": orders})
