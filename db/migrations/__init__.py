"""Alembic's migrations, oldest first by their numbers."""
