"""Counts what a process does, and writes the figures as Prometheus reads them. Knows no server and no queue."""
