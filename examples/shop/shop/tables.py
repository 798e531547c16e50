"""The shop's tables, beside those of users-worker in the same database."""

from datetime import datetime
from pathlib import Path
from typing import ClassVar

from sqlalchemy import ForeignKey, Identity, MetaData, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from arqonce.database.schema import Schema
from arqonce.ledger import tables as users_worker


class Base(DeclarativeBase):
    """The base of the shop's own tables; the types and the names of constraints are those of users-worker."""

    metadata = MetaData(naming_convention=users_worker.Base.metadata.naming_convention)
    type_annotation_map: ClassVar = users_worker.Base.type_annotation_map


class Order(Base):
    """What a user has ordered."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(users_worker.User.id), index=True)
    item: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


SCHEMA = Schema("shop", Base.metadata, Path(__file__).parent / "migrations")
