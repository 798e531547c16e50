"""Runs one attempt of a job in PostgreSQL, and decides what its failure means. Knows no Redis."""
