"""Writes promised jobs into Redis until they have ended. PostgreSQL is the source of truth."""
