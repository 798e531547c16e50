"""Runs one attempt of a job in PostgreSQL and decides what a failure means. Knows no Redis."""
