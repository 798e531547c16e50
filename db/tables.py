"""The application's tables and their constraints. Payloads validate the same rules; these are authoritative."""

from datetime import datetime
from pathlib import Path
from typing import ClassVar

from sqlalchemy import BigInteger, CheckConstraint, DateTime, Identity, Index, MetaData, Text, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from arqonce import Schema

NAME_LENGTH = 200
"""Longest name, in characters (code points)."""

EMAIL_LENGTH = 254
"""Longest e-mail address, in characters (RFC 5321, 4.5.3.1.3, less the angle brackets)."""


class Base(DeclarativeBase):
    """Base class of all tables. It defines the names of constraints, on which migrations and errors rely."""

    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "uq": "%(table_name)s_%(column_0_name)s_key",
            "ix": "%(table_name)s_%(column_0_name)s_idx",
            "ck": "%(table_name)s_%(constraint_name)s_check",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
        }
    )
    type_annotation_map: ClassVar = {str: Text, int: BigInteger, datetime: DateTime(timezone=True)}


class User(Base):
    """A person. Names repeat; e-mails do not."""

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint(f"char_length(name) BETWEEN 1 AND {NAME_LENGTH}", name="name_length"),
        CheckConstraint("name = btrim(name)", name="name_trimmed"),
        CheckConstraint(f"char_length(email) BETWEEN 3 AND {EMAIL_LENGTH}", name="email_length"),
        CheckConstraint("email = lower(btrim(email)) AND position('@' IN email) > 1", name="email_normal"),
        Index(None, "name", "id"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str]
    email: Mapped[str | None] = mapped_column(unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


SCHEMA = Schema("users_worker", Base.metadata, Path(__file__).parent / "migrations")
"""The tables and their migrations, for ``users-worker migrate``."""
