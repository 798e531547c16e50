"""The shop's tables, beside the library's in one database."""

from datetime import date, datetime
from pathlib import Path
from typing import ClassVar

from sqlalchemy import BigInteger, DateTime, Identity, MetaData, Text, UniqueConstraint, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from arqonce import Schema


class Base(DeclarativeBase):
    """What all tables share: the names of constraints, so that migrations and refusals can rely on them."""

    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "uq": "%(table_name)s_%(column_0_N_name)s_key",
        }
    )
    type_annotation_map: ClassVar = {str: Text, int: BigInteger, datetime: DateTime(timezone=True)}


class Order(Base):
    """What a customer has ordered."""

    __tablename__ = "orders"
    __table_args__ = (UniqueConstraint("customer", "item"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    customer: Mapped[str]
    item: Mapped[str]
    cents: Mapped[int] = mapped_column(server_default="0")
    charge: Mapped[str | None]
    """The bank's id of the charge, once the customer has paid."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class DailyReport(Base):
    """What was ordered on a day of the shop's time zone."""

    __tablename__ = "reports"

    day: Mapped[date] = mapped_column(primary_key=True)
    orders: Mapped[int]
    cents: Mapped[int]


SCHEMA = Schema("shop", Base.metadata, Path(__file__).parent / "migrations")
"""What ``shop migrate`` makes of these tables."""
