"""Sends promised jobs to Redis until they have ended. PostgreSQL owns the truth."""
