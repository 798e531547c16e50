"""All tables of the ledger and of the application, as their metadata names them."""

from sqlalchemy import text

from arqonce.ledger.tables import Base as Ledger
from db.tables import Base as Application

TABLES = [*Application.metadata.tables, *Ledger.metadata.tables]

EMPTY_TABLES = text(f"TRUNCATE {', '.join(TABLES)} RESTART IDENTITY")
